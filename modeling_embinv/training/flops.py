"""Floating-point operations of a training step, and the rate of bare matrix products that they are held against."""

import time
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..modeling_embinv import EmbInvForMaskedDiffusion


def training_flops(model: EmbInvForMaskedDiffusion, batch_size: int, length: int, num_scored: int) -> float:
    """Operations of one forward and backward pass: 2 a weight and token forward, twice that backward.

    Args:
        length: L, canvas tokens of a row; condition tokens are added here.
        num_scored: M, positions that go through the head and the output layer.
    """
    config = model.config
    inputs = length + config.num_condition_tokens
    width = config.hidden_size
    conditions = (module for module in (model.projector, model.modulation, model.condition_tokens) if module)
    per_text = sum(map(_matrix_weights, conditions))
    output = width * width + width * config.vocab_size
    layers = _of_layers(model.trunk.layers, width, inputs)
    return 6.0 * (batch_size * (inputs * layers + per_text) + num_scored * output)


def surrogate_flops(model: EmbInvForMaskedDiffusion, batch_size: int, length: int) -> float:
    """As `training_flops`, of the model's surrogate, which has its own depth and reads no condition.

    Args:
        length: L, tokens of a row, the first token that the surrogate puts before each text among them.
    """
    surrogate, width = model.surrogate, model.config.hidden_size
    assert surrogate is not None  # nothing else trains
    layers = _of_layers(model.trunk.first_layers(surrogate.depth).layers, width, length)
    # the map of the tokens gets gradients, and passes none on to the trunk's embeddings
    mapped = 0.0 if surrogate.tokens is None else 2 / 3 * (length - 1) * width * width
    return 6.0 * batch_size * (length * layers + mapped + width * model.config.embedding_dim)


def _of_layers(layers: nn.Module, width: int, length: int) -> int:
    """Products a token, forward, over rows of `length`: the layers' weights, attention's scores and mixture."""
    return _matrix_weights(layers) + 2 * len(list(layers.children())) * width * length


def _matrix_weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)


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


@cache  # a process may train several times
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
