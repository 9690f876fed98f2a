"""Linear layers by the faster of PyTorch's two libraries for matrix products on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# On AMD's processors oneDNN takes 0.5 to 0.95 of the time of MKL, PyTorch's choice; on an Intel with AVX-512 it takes
# longer for few texts, and as long for many (benchmarks/linear_libraries.py).
PREFERS_ONEDNN = torch.backends.mkldnn.is_available() and "AMD" in torch.cpu.get_capabilities().get("cpu_name", "")


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (…, K) · weight (N, K)ᵀ + bias (N,) → (…, N), as `torch.nn.functional.linear`.

    By oneDNN where that is faster: in float32, on the CPU, where no gradient flows, since its operator has none.
    """
    if PREFERS_ONEDNN and _fits_onednn(input, weight):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
        return product
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

    @classmethod
    def sharing(cls, layer: nn.Linear) -> "Linear":
        """A layer with the very weights of a plain one, not a copy of them."""
        shared = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        shared.weight, shared.bias = layer.weight, layer.bias
        return shared.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Input (…, K) → (…, N)."""
        return linear(input, self.weight, self.bias)


def use_linear(model: nn.Module) -> None:
    """Put a `Linear` in the place of every plain linear layer of a model; weights and names stay.

    The model is changed, so it must be the caller's own: one that is being built, or was loaded for nobody else.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, Linear.sharing(layer))
