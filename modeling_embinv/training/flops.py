"""Floating-point operations of a training step, and the rate of bare matrix products that they are held against."""

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..modeling_embinv import EmbInvForMaskedDiffusion


def training_flops(model: EmbInvForMaskedDiffusion, batch_size: int, length: int, num_scored: int) -> float:
    """Operations of one forward and backward pass: 2 a weight and token forward, twice that backward.

    Args:
        length: L, canvas tokens of a row; condition tokens are added here.
        num_scored: M, positions that go through the head and the output layer.
    """
    config = model.config
    backbone: Any = config.backbone_config
    tokens = batch_size * (length + config.num_condition_tokens)
    width, depth = config.hidden_size, backbone.num_hidden_layers
    layers = sum(weight.numel() for weight in model.trunk.layers.parameters() if weight.ndim == 2)
    attention = 2 * depth * width * (length + config.num_condition_tokens)  # scores and mixture, a token
    per_text = sum(
        weight.numel()
        for module in (model.projector, model.modulation, model.condition_tokens)
        if module is not None
        for weight in module.parameters()
        if weight.ndim == 2
    )
    output = width * width + width * config.vocab_size
    return 6.0 * (tokens * (layers + attention) + batch_size * per_text + num_scored * output)


def _linear_operations(input: torch.Size, weight: torch.Size, *_: Any, out_shape: torch.Size, **__: Any) -> int:
    """Of input (…, K) · weight (N, K)ᵀ, by shapes."""
    return 2 * out_shape.numel() * weight[1]


# oneDNN's operator of `linear_embinv`, where this build of PyTorch has it: PyTorch's counter does not know it
ONEDNN_OPERATIONS = {
    operator: _linear_operations for operator in [getattr(torch.ops.mkldnn, "_linear_pointwise", None)] if operator
}


def operation_counter() -> FlopCounterMode:
    """PyTorch's counter of operations, with oneDNN's product."""
    return FlopCounterMode(display=False, custom_mapping=ONEDNN_OPERATIONS)


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Operations a second of square matrix products, the best of several: what this device can do in `dtype`."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = left @ right
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        synchronize(device)
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to do what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
