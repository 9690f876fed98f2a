"""Linear layers by the faster of PyTorch's two libraries for matrix products on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

# On AMD's processors oneDNN takes 0.5 to 0.95 of the time of MKL, PyTorch's choice (benchmarks/linear_libraries.py).
# Elsewhere nobody has measured.
PREFERS_ONEDNN = torch.backends.mkldnn.is_available() and "AMD" in torch.cpu.get_capabilities().get("cpu_name", "")


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (…, K) · weight (N, K)ᵀ + bias (N,) → (…, N), as `torch.nn.functional.linear`.

    By oneDNN where that is faster: in float32, on the CPU, where no gradient flows, since its operator has none.
    """
    if PREFERS_ONEDNN and _fits_onednn(input, weight):
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return F.linear(input, weight, bias)


def _fits_onednn(input: Tensor, weight: Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and input.is_cpu
        and input.dtype == weight.dtype == torch.float32
        and input.numel() > 0
        and weight.is_contiguous()  # oneDNN's kernel for slices is a thousand times slower
        and type(weight) in (Tensor, nn.Parameter)  # sharded weights have operators of their own
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which has its own choice
    )


class Linear(nn.Linear):
    """A linear layer that computes by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Input (…, K) → (…, N)."""
        return linear(input, self.weight, self.bias)


def use_linear(model: nn.Module) -> None:
    """Make every plain linear layer of a model one that computes by `linear`; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def _operations(input_shape: torch.Size, weight_shape: torch.Size, *_: Any, out_shape: torch.Size, **__: Any) -> int:
    """For PyTorch's counter of operations, which knows its default library's operators only."""
    return 2 * out_shape.numel() * weight_shape[1]


# every checkpoint of the Hub brings a copy of this file, and a second registration is an error
if hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._linear_pointwise not in flop_registry:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_operations)
