"""Matrix products in int8 on a CPU: faster than float32, and the float weights stay beside them.

The weights lie in PyTorch's quantised tensors, which are deprecated, because one operator then finds the range of the
inputs, rounds them and multiplies. With the API that stays, `onednn.qlinear_pointwise`, a layer has the same error and
takes 1.0 to 1.5 times as long, 1.26 in the median (benchmarks/int8_kernels.py, one thread of an AMD EPYC).

The surrogate judges texts that differ by a word, and int8 is too coarse for it: the released one's vectors then have a
cosine of 0.996 with those in float32. It multiplies in bfloat16 where the processor does: 0.99998, in 0.4 of the time
of float32. Elsewhere the layers that round worst, those that narrow an MLP, stay in float32: 0.999, in 0.6 of it.
Without VNNI int8 is coarser (0.9986) and saves a fifteenth of the time, while a search for hidden words needs six
times as many calls: there the surrogate stays in float32.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .errors_embinv import EmbInvError
from .linear_embinv import Linear

# rows and tokens that the surrogate's inputs are measured on; how far large channels come down to the others, of 1
SAMPLED, SMOOTHING = (32, 16), 0.4
# steps of a weight each way. Without VNNI, kernels hold the sum of two products in 16 bits: 2 · 255 · 64 still fits.
# Inputs keep all of their 256 steps, since one range serves a whole call, and a weight's only its channel.
HAS_VNNI = bool(torch.cpu.get_capabilities().get("avx512_vnni", False))
WEIGHT_STEPS = 127 if HAS_VNNI else 64
# the end of the name of BERT's layers with an activation behind them, and another linear layer behind that; and the
# activations that round once, where others are computed in several steps
ACTIVATED, ONE_STEP = "intermediate.dense", ("gelu", "relu", "silu")
# whether the processor multiplies in bfloat16
HAS_BFLOAT16 = any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class RoundedLinear(Linear):
    """A linear layer whose product takes rounded weights when nothing needs its gradient, and inputs are in float32.

    Weights are rounded once. The float weight keeps its name and serves whoever needs it: training, `functional_call`
    with other weights, saving, another device or precision.

    dtypes: of inputs to that product.
    """

    dtypes: tuple[torch.dtype, ...] = (torch.float32,)

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias  # the very parameters, so tied ones stay tied

    def _rounded(self) -> Any:
        """The weight and the bias as `_product` takes them."""
        raise NotImplementedError

    def _product(self, input: Tensor, rounded: Any) -> Tensor:
        """Input (…, in_features) → (…, out_features)."""
        raise NotImplementedError

    def _pack(self) -> None:
        self._packed = self._rounded()
        # the values are held, too: else others may come to lie where they lay
        self._packed_from = [
            (name, weight, weight.detach(), None if weight.is_inference() else weight._version)
            for name, weight in self.named_parameters()
        ]

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes, to which PyTorch cannot send packed weights: they are packed again there."""
        return {**self.__dict__, "_packed": None, "_packed_from": [], "_was_stale": self._stale}

    def __setstate__(self, state: dict[str, Any]) -> None:
        was_stale = state.pop("_was_stale")
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # PyTorch's method has no types
        if not was_stale:
            self._pack()

    def forward(self, input: Tensor) -> Tensor:
        """Input (…, in_features) → (…, out_features)."""
        fits = input.dtype in self.dtypes and input.is_cpu and input.numel() > 0
        if torch.is_grad_enabled() or not fits or self._stale:
            return self._float_product(input)
        return self._product(input, self._packed)

    def _float_product(self, input: Tensor) -> Tensor:
        """The same with the float weights."""
        return super().forward(input)

    @property
    def _stale(self) -> bool:
        """Whether other weights, or other values of them, stand here than those that were rounded."""
        if self._packed is None:
            return True
        for name, weight, values, version in self._packed_from:  # in every call of a layer: a microsecond
            now = self._parameters.get(name)
            if now is not weight or now.data_ptr() != values.data_ptr():
                return True
            if version is not None and now._version != version:
                return True
        return False


class BFloat16Linear(RoundedLinear):
    """A linear layer whose product runs in bfloat16; sums are in float32, the output is rounded once.

    Args:
        output: of that product. In bfloat16 an activation behind it takes half of the memory; with another layer of
            this kind behind that, which would round its input, the result is the same.
    """

    dtypes = (torch.float32, torch.bfloat16)

    def __init__(self, linear: nn.Linear, output: torch.dtype = torch.float32) -> None:
        super().__init__(linear)
        self._output = output
        self._pack()

    def _float_product(self, input: Tensor) -> Tensor:
        return super()._float_product(input.to(self.weight.dtype))

    def _rounded(self) -> tuple[Tensor, Tensor | None]:
        bias = None if self.bias is None else self.bias.detach().bfloat16()
        return self.weight.detach().bfloat16(), bias

    def _product(self, input: Tensor, rounded: tuple[Tensor, Tensor | None]) -> Tensor:
        return nn.functional.linear(input.bfloat16(), *rounded).to(self._output)


class Int8Linear(RoundedLinear):
    """A linear layer whose product runs in int8.

    Weights are rounded in `WEIGHT_STEPS` each way to the largest of their output channel; inputs in every call, in 256
    steps over their range in that call, so what shares a batch changes the last digits.

    Args:
        largest: (in_features,) absolute inputs to expect. Few channels of an encoder are twenty times as large as the
            others and leave them few steps; they are divided, and their weights multiplied, by a power of that size
            (arXiv 2211.10438). None leaves inputs as they are.
    """

    def __init__(self, linear: nn.Linear, largest: Tensor | None = None) -> None:
        super().__init__(linear)
        self._scale = None if largest is None else largest.clamp_min(1e-2 * largest.max() + 1e-6) ** SMOOTHING
        self._shrink = None if self._scale is None else 1 / self._scale
        self._pack()

    def _rounded(self) -> Any:
        return _packed(self, self._scale)

    def _product(self, input: Tensor, rounded: Any) -> Tensor:
        if self._shrink is not None:
            input = input * self._shrink
        return torch.ops.quantized.linear_dynamic(input, rounded)


def _packed(linear: nn.Linear, scale: Tensor | None) -> Any:
    """Weight and bias as oneDNN's kernel wants them. torchao's int8 layers are no faster than float32 on a CPU."""
    weight = linear.weight.detach() if scale is None else linear.weight.detach() * scale
    scales = (weight.abs().amax(dim=1) / WEIGHT_STEPS).clamp_min(1e-12).double()
    zeros = torch.zeros_like(scales, dtype=torch.long)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)  # see the module's docstring
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(rounded, linear.bias)
    finally:
        torch.backends.quantized.engine = before


def pack(model: Any) -> None:
    """The trunk, the head and the output layer of a model in int8, its surrogate's trunk more finely; in place.

    Raises:
        EmbInvError: for a model that is not in float32 on the CPU, or without oneDNN.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise EmbInvError(f"int8 is for float32 models on the CPU, this one is {model.dtype} on {model.device}.")
    if "onednn" not in torch.backends.quantized.supported_engines or not hasattr(torch, "quantize_per_channel"):
        raise EmbInvError(f"int8 needs oneDNN's kernels, which PyTorch {torch.__version__} does not have here.")
    if model.surrogate is not None:
        with torch.autocast("cpu", enabled=False):  # which would round the surrogate's changes of the trunk
            _pack_surrogate(model, model.surrogate.merge(model.trunk))
    for name, layer in _linear_layers(model.trunk):
        model.trunk.set_submodule(name, Int8Linear(layer))
    model.head.dense, model.decoder = Int8Linear(model.head.dense), Int8Linear(model.decoder)


def _largest_inputs(model: Any, trunk: nn.Module) -> dict[str, Tensor]:
    """The largest absolute input in every channel of the layers of the surrogate's trunk, by the layer's name.

    It reads random tokens, the same ones every time: which channels are large hardly depends on the text.
    """
    largest: dict[str, Tensor] = {}

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0].flatten(0, -2).abs().amax(dim=0)
            largest[name] = torch.maximum(largest.get(name, found), found)

        return layer.register_forward_pre_hook(keep)

    ids = torch.randint(model.config.vocab_size, SAMPLED, generator=torch.Generator().manual_seed(0))
    hooks = [watch(name, layer) for name, layer in trunk.named_modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        model.embed(ids)
    for hook in hooks:
        hook.remove()
    return largest


def _pack_surrogate(model: Any, trunk: nn.Module) -> None:
    """The surrogate's trunk in bfloat16; where the processor has none, most of it in int8, or none without VNNI."""
    if not (HAS_BFLOAT16 or HAS_VNNI):
        return
    largest = {} if HAS_BFLOAT16 else _largest_inputs(model, trunk)
    activated = ACTIVATED if getattr(trunk.config, "hidden_act", None) in ONE_STEP else ()
    for name, layer in _linear_layers(trunk):
        if HAS_BFLOAT16:
            trunk.set_submodule(
                name, BFloat16Linear(layer, torch.bfloat16 if name.endswith(activated) else torch.float32)
            )
        elif layer.in_features <= layer.out_features:  # the others narrow an MLP: few of their inputs are large
            trunk.set_submodule(name, Int8Linear(layer, largest[name]))


def _linear_layers(trunk: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, layer) for name, layer in trunk.named_modules() if isinstance(layer, nn.Linear)]
