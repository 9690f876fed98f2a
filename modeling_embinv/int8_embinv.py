"""Matrix products in int8 on a CPU: about half of the time of float32, and the float weights stay beside them."""

import warnings

import torch
from torch import Tensor, nn

from .linear_embinv import Linear


class Int8Linear(Linear):
    """A linear layer whose product runs in int8 when nothing needs its gradient.

    Weights are rounded once, in 127 steps each way to the largest of their output channel; inputs in every call, in
    256 steps over their range in that call, so what shares a batch changes the last digits. The float weight keeps its
    name and serves whoever needs it: training, `functional_call` with other weights, saving, another device.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias  # the very parameters, so tied ones stay tied
        self._packed, self._packed_from = _packed(linear), (linear.weight, linear.weight._version)
        # without VNNI, sums of two products are held in 16 bits, which 8-bit inputs overflow
        self._reduce_range = not torch.cpu.get_capabilities().get("avx512_vnni", False)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or self._stale or not input.is_cpu or not input.numel():
            return super().forward(input)
        return torch.ops.quantized.linear_dynamic(input, self._packed, reduce_range=self._reduce_range)

    @property
    def _stale(self) -> bool:
        """Whether other weights stand here than those that were rounded."""
        weight, version = self._packed_from
        return self.weight is not weight or weight._version != version


def _packed(linear: nn.Linear):
    """Weight and bias as oneDNN's kernel wants them. torchao's int8 layers are no faster than float32 on a CPU."""
    weight = linear.weight.detach()
    scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12).double()
    zeros = torch.zeros_like(scales, dtype=torch.long)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        with warnings.catch_warnings(action="ignore"):  # that such tensors will go one day
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(rounded, linear.bias)
    finally:
        torch.backends.quantized.engine = before


def pack(model):
    """The trunk, the head and the output layer of a model, and its surrogate's trunk, in int8; in place.

    Raises:
        ValueError: for a model that is not in float32 on the CPU, or without oneDNN.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(f"int8 is for float32 models on the CPU, this one is {model.dtype} on {model.device}.")
    if "onednn" not in torch.backends.quantized.supported_engines or not hasattr(torch, "quantize_per_channel"):
        raise ValueError(f"int8 needs oneDNN's kernels, which PyTorch {torch.__version__} does not have here.")
    if model.surrogate is not None:
        _pack_layers(model.surrogate.merge(model.trunk))
    _pack_layers(model.trunk)
    model.head.dense, model.decoder = Int8Linear(model.head.dense), Int8Linear(model.decoder)


def _pack_layers(trunk: nn.Module):
    for name, layer in list(trunk.named_modules()):
        if isinstance(layer, nn.Linear):
            trunk.set_submodule(name, Int8Linear(layer))
