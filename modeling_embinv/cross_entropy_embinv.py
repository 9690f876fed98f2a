"""Cross entropy of a large vocabulary in chunks, with the gradient taken on the way forward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .linear_embinv import linear


# rows whose logits exist at a time: a CPU's caches want few, a GPU's processors many
CHUNK_ROWS, CHUNK_ROWS_GPU = 1024, 8192


def differences(logits: Tensor, targets: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """−log p (M,) of targets by logits (M, V), and its gradient p − onehot (M, V) in the dtype of the logits."""
    log_p = logits.float().log_softmax(dim=-1)
    losses = -log_p.gather(1, targets[:, None]).squeeze(1)
    if not wants_gradient:
        return losses, None
    p = log_p.exp_().scatter_add_(1, targets[:, None], log_p.new_full((len(log_p), 1), -1.0))
    return losses, p.to(logits.dtype)


def cross_entropies(
    decoder: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, chunk_size: int | None = None
) -> Tensor:
    """−log p (M,) float32 of targets (M,) by the logits of hidden (M, H), chunk by chunk; no gradient flows.

    decoder: the output layer, which may compute in int8: (…, H) → (…, V). chunk_size: as of `chunked_cross_entropy`.
    """
    chunks = zip(*(values.split(chunk_size or _chunk_size(hidden)) for values in (hidden, targets)), strict=True)
    losses = [differences(decoder(few), wanted, wants_gradient=False)[0] for few, wanted in chunks]
    return torch.cat(losses)


def _chunk_size(hidden: Tensor) -> int:
    """What suits the device."""
    return CHUNK_ROWS if hidden.is_cpu else CHUNK_ROWS_GPU


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Σ weights · CE(hidden · Wᵀ + b, targets): logits of one chunk of rows exist at a time, and only once.

    The gradient of the logits is known as soon as they are, so backward only scales what forward stored: three
    matrix products in all, and (chunk, V) instead of three times (M, V) numbers of memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        weights: Tensor,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        needed = ctx.needs_input_grad[:3]
        losses = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        inputs = zip((hidden, weight, bias), needed, strict=True)
        grad_hidden, grad_weight, grad_bias = (torch.zeros_like(x) if need else None for x, need in inputs)
        compute_weight = weight.to(hidden.dtype)
        for first in range(0, hidden.shape[0], chunk_size):
            rows = slice(first, first + chunk_size)
            logits = linear(hidden[rows], compute_weight, bias.to(hidden.dtype))
            losses[rows], grad = differences(logits, targets[rows], any(needed))
            if grad is not None:
                # (p − onehot) · weight: the weight is applied to the narrow side of each product
                row_weights = weights[rows, None].to(hidden.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = (grad @ compute_weight).mul_(row_weights)
                if grad_weight is not None and weight.dtype == hidden.dtype:
                    grad_weight.addmm_(grad.T, hidden[rows] * row_weights)
                elif grad_weight is not None:
                    grad_weight += grad.T @ (hidden[rows] * row_weights)  # bf16 products, summed up in float32
                if grad_bias is not None:
                    grad_bias += grad.T.mv(row_weights.squeeze(1))
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if grad is None else grad * grad_loss for grad in ctx.saved_tensors)
        return *grads, None, None, None


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted sum of cross entropies over a vocabulary of V tokens.

    Args:
        hidden: (M, H) in the dtype of computation. weight: (V, H). bias: (V,). targets: (M,) int64.
        weights: (M,) float, factor of each row's loss; no gradient flows to it.
        chunk_size: rows whose logits exist at a time; None = what suits the device.

    Returns:
        loss () float32, differentiable in hidden, weight and bias, and the rows' own losses (M,), which are not.
    """
    chunk_size = chunk_size or _chunk_size(hidden)
    # torch gives `apply` no types
    loss, losses = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, weights.float(), chunk_size
    )
    return loss, losses
