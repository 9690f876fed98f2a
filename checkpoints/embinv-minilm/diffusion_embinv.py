"""Masked diffusion as pure functions: α(t), masking, and the steps that unmask.

Equation numbers are those of the paper (Xiao, "Embedding Inversion via Conditional Masked Diffusion Language
Models"). A *canvas* is a row of exactly L tokens: the text, then the end token up to L. Every position of it is
masked and predicted alike, so that neither the canvas nor the pattern of masks tells how long the text is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# tokens whose probabilities are summed at once where one is drawn
BLOCK = 256


@dataclass(frozen=True)
class NoiseSchedule:
    """Survival probability α(t) of a token; `fixed` ignores t and masks the share `mask_ratio` (Appendix A)."""

    name: str = "log_linear"
    lam: float = 5.0
    mask_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ("log_linear", "linear", "cosine", "fixed"):
            raise ValueError(f"noise schedule must be log_linear, linear, cosine or fixed, got {self.name!r}.")
        if (self.name == "fixed") != (self.mask_ratio is not None):
            raise ValueError("mask_ratio belongs to the fixed noise schedule, which needs it.")
        if self.mask_ratio is not None and not 0 < self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be in (0, 1], got {self.mask_ratio}.")

    def alpha(self, t: Tensor) -> Tensor:
        """α(t) for t (B,) in [0, 1]."""
        if self.mask_ratio is not None:
            return torch.full_like(t, 1 - self.mask_ratio)
        if self.name == "log_linear":
            return torch.exp(-self.lam * t)
        if self.name == "linear":
            return 1 - t
        return 1 - torch.cos(math.pi / 2 * (1 - t))

    def alpha_prime(self, t: Tensor) -> Tensor:
        """α′(t) (B,)."""
        if self.name == "log_linear":
            return -self.lam * torch.exp(-self.lam * t)
        if self.name == "linear":
            return torch.full_like(t, -1.0)
        if self.name == "cosine":
            return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))
        return torch.zeros_like(t)

    def timestep(self, masked_share: Tensor) -> Tensor:
        """The t in [0, 1] at which the share `masked_share` (B,) is masked on average: the inverse of 1 − α."""
        alpha = (1 - masked_share).clamp(0, 1)
        if self.name == "log_linear":
            return (-torch.log(alpha.clamp_min(1e-12)) / self.lam).clamp(0, 1)
        if self.name == "linear":
            return 1 - alpha
        if self.name == "cosine":
            return 1 - 2 / math.pi * torch.acos(1 - alpha)
        return torch.ones_like(alpha)


def sample_timesteps(batch_size: int, generator: torch.Generator | None = None, eps: float = 1e-3) -> Tensor:
    """Timesteps (B,) in [eps, 1], one from each of B equal strata: as uniform as t ~ U(eps, 1), with less variance.

    The strata are shuffled over the rows: Eq. 4 wants t and x0 independent, in whatever order a batch comes.
    """
    device = "cpu" if generator is None else generator.device
    strata = torch.randperm(batch_size, generator=generator, device=device)
    jitter = torch.rand(batch_size, generator=generator, device=device)
    return eps + (1 - eps) * (strata + jitter) / batch_size


def mask_tokens(
    input_ids: Tensor,
    timestep: Tensor,
    schedule: NoiseSchedule,
    mask_token_id: int,
    generator: torch.Generator | None = None,
    attention_mask: Tensor | None = None,
    fully_masked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The forward process q(x_t | x_0) (Eq. 2).

    Args:
        input_ids: x0 (B, L).
        timestep: t (B,).
        attention_mask: (B, L), 0 at padding, which is never masked.
        fully_masked: (B,) bool, rows that are masked throughout, as sampling starts.

    Returns:
        noised_ids xt (B, L) and masked (B, L) bool.
    """
    device = "cpu" if generator is None else generator.device
    draws = torch.rand(input_ids.shape, generator=generator, device=device).to(input_ids.device)
    masked = draws >= schedule.alpha(timestep.to(input_ids.device))[:, None]
    if fully_masked is not None:
        masked |= fully_masked.to(input_ids.device)[:, None]
    if attention_mask is not None:
        masked &= attention_mask.bool()
    return input_ids.masked_fill(masked, mask_token_id), masked


@dataclass
class Canvas:
    """State of the sampler.

    ids: (B, L) int64, [MASK] where nothing is committed. confidence: (B, L) float, the probability that the model
    gave a token when it was committed, 0 where masked.
    """

    ids: Tensor
    confidence: Tensor
    mask_token_id: int
    end_token_id: int

    @classmethod
    def fully_masked(
        cls, batch_size: int, length: int, mask_token_id: int, end_token_id: int, device: torch.device | None = None
    ) -> "Canvas":
        """The canvas that writing starts from."""
        ids = torch.full((batch_size, length), mask_token_id, device=device)
        confidence = torch.zeros(batch_size, length, device=device, dtype=torch.float32)  # whatever torch's default is
        return cls(ids, confidence, mask_token_id, end_token_id)

    def filled(self, ids: Tensor) -> "Canvas":
        """The canvas `ids` (B, L), sure of all that is not [MASK]."""
        known = (ids != self.mask_token_id).to(self.confidence)
        return Canvas(ids.clone(), known, self.mask_token_id, self.end_token_id)

    @property
    def masked(self) -> Tensor:
        """(B, L) bool."""
        return self.ids == self.mask_token_id

    def rows(self, index: Tensor) -> "Canvas":
        """The rows `index` as a canvas of their own."""
        return Canvas(self.ids[index], self.confidence[index], self.mask_token_id, self.end_token_id)

    def cut(self, length: int) -> "Canvas":
        """Its first `length` positions."""
        return Canvas(self.ids[:, :length], self.confidence[:, :length], self.mask_token_id, self.end_token_id)

    def commit(self, tokens: Tensor, confidence: Tensor, where: Tensor) -> "Canvas":
        """Write `tokens` at the masked positions of `where` (B, L) bool; what follows an end token is the end, too."""
        where = where & self.masked
        ids = torch.where(where, tokens, self.ids)
        confidence = torch.where(where, confidence, self.confidence)
        is_end = ids == self.end_token_id
        behind = after_first(is_end)
        end_confidence = torch.where(is_end & ~behind, confidence, 0.0).amax(dim=1, keepdim=True)
        ids = ids.masked_fill(behind, self.end_token_id)
        return Canvas(ids, torch.where(behind, end_confidence, confidence), self.mask_token_id, self.end_token_id)

    def remask(self, where: Tensor, fixed: Tensor | None = None) -> "Canvas":
        """Mask the positions `where` (B, L) bool again; a re-opened first end token re-opens all that follow it.

        fixed: (B, L) bool, positions that stay.
        """
        is_end = self.ids == self.end_token_id
        first_end = is_end & ~after_first(is_end)
        where = where | ((where & first_end).any(dim=1, keepdim=True) & is_end)
        where = where if fixed is None else where & ~fixed
        ids = self.ids.masked_fill(where, self.mask_token_id)
        return Canvas(ids, self.confidence.masked_fill(where, 0.0), self.mask_token_id, self.end_token_id)


def after_first(flags: Tensor) -> Tensor:
    """(…, L) bool, true behind the first true position of each row of `flags` (…, L)."""
    counts = flags.long().cumsum(dim=-1)
    return (counts - flags.long()) > 0


def text_positions(ids: Tensor, end: int) -> Tensor:
    """(…, L) bool: the positions of each text of ids (…, L), its end token included."""
    return ~after_first(ids == end)


def shortest_canvases(ids: Tensor, end: int, lengths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Rows of ids (B, L) by the shortest of `lengths`, or else L, that holds all but ends behind the first.

    Yields:
        (length, (R,) indexes of rows), the shortest first.
    """
    width = ids.shape[1]
    ends = (ids == end).flip(1).long().cumprod(dim=1).sum(dim=1)  # (B,)
    size, shorter = width - (ends - 1).clamp_min(0), 0
    for length in (*sorted(length for length in lengths if length < width), width):
        rows = ((size > shorter) & (size <= length)).nonzero().squeeze(1)
        shorter = length
        if len(rows):
            yield length, rows


def lowest(scores: Tensor, eligible: Tensor, count: Tensor) -> Tensor:
    """(B, L) bool: in each row the `count` (B,) eligible positions of lowest score, ties from the left."""
    order = scores.masked_fill(~eligible, float("inf")).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return eligible & (rank < count[:, None])


def sample_tokens(logits: Tensor, draws: Tensor) -> Tensor:
    """Tokens (M,) from softmax(logits) (M, V) by inverting its distribution function at uniform draws (M,).

    The function is summed block by block, and token by token in the block that a draw falls into alone: sums of all
    tokens of a row, one after another, take as long as all the rest.
    """
    probabilities = logits.softmax(dim=-1)
    count = probabilities.shape[1] // BLOCK
    whole, rest = probabilities.split([count * BLOCK, probabilities.shape[1] - count * BLOCK], dim=1)
    blocks = torch.cat([whole.unflatten(1, (count, BLOCK)).sum(dim=2), rest.sum(dim=1, keepdim=True)], dim=1)
    sums = blocks.cumsum(dim=1)
    # the last sum may fall short of 1 by rounding: a draw is scaled into what is there
    draws = draws[:, None] * sums[:, -1:]
    block = _first_above(sums, draws)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp_min(0)), 0.0)
    tokens = block * BLOCK + torch.arange(BLOCK, device=logits.device)
    inside = probabilities.gather(1, tokens.clamp_max(logits.shape[1] - 1)).masked_fill(tokens >= logits.shape[1], 0.0)
    sums = inside.cumsum(dim=1)
    return tokens.gather(1, _first_above(sums, draws - before)).squeeze(1)


def _first_above(sums: Tensor, draws: Tensor) -> Tensor:
    """(M, 1) the first column of rising sums (M, K) above draws (M, 1), the last that adds something where none is."""
    last = torch.searchsorted(sums, sums[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(sums, draws, right=True), last).clamp_max(sums.shape[1] - 1)


def sequential_step(canvas: Canvas, tokens: Tensor, confidence: Tensor) -> Canvas:
    """Commit the leftmost masked position (Eq. 11)."""
    masked = canvas.masked
    return canvas.commit(tokens, confidence, masked & ~after_first(masked))


def euler_step(
    canvas: Canvas, tokens: Tensor, confidence: Tensor, alpha_now: Tensor, alpha_next: Tensor, draws: Tensor
) -> Canvas:
    """One reverse step from t to s < t (Eq. 12): a masked position is committed with (α(s) − α(t)) / (1 − α(t)).

    Args:
        alpha_now, alpha_next: α(t) and α(s) (B,); the last step has α(0) = 1 and commits everything.
        draws: (B, L) uniform in [0, 1).
    """
    probability = (alpha_next - alpha_now) / (1 - alpha_now).clamp_min(1e-12)
    return canvas.commit(tokens, confidence, draws < probability[:, None])


def remask_step(canvas: Canvas, remask_ratio: float, fixed: Tensor | None = None) -> Canvas:
    """Mask the share τ of the committed positions of lowest confidence again (Eq. 13), at least one of them.

    The end tokens behind the first one count as part of it: they are one decision.

    Args:
        fixed: (B, L) bool, positions that were given: the sampler committed none of them.
    """
    behind_end = after_first(canvas.ids == canvas.end_token_id)
    committed = ~canvas.masked & ~behind_end
    committed = committed if fixed is None else committed & ~fixed
    count = torch.ceil(remask_ratio * committed.sum(dim=1) - 1e-6)
    return canvas.remask(lowest(canvas.confidence, committed, count), fixed)


def confidence_step(canvas: Canvas, tokens: Tensor, confidence: Tensor, steps_left: int) -> Canvas:
    """Commit the most confident of the masked positions, 1/steps_left of them (Eqs. 14–15).

    Positions that the model takes to be behind the end cost nothing: they are committed along with the chosen ones
    when they are as confident as the least confident of those. Else a short text on a long canvas would spend its
    steps on the empty part. A token that a surer position close by has, too, waits for a later pass: positions that
    are filled at once do not know of each other, and several may take the same word.
    """
    masked = canvas.masked
    proposed = torch.where(masked, tokens, canvas.ids)
    predicted_end = proposed == canvas.end_token_id
    # a tail position: it and everything to its right is predicted to be the end, and so is its left neighbour
    run = predicted_end.flip(1).long().cumprod(dim=1).flip(1).bool()
    tail = run & after_first(run)
    paid = masked & ~tail
    count = torch.ceil(paid.sum(dim=1) / steps_left)
    sureness = torch.where(masked, confidence, 2.0)
    waits = _repeats(proposed, sureness) & ~predicted_end
    chosen = lowest(waits.to(confidence) - confidence, paid, count)
    threshold = torch.where(chosen, confidence, float("inf")).amin(dim=1, keepdim=True)
    free = masked & tail & ((confidence >= threshold) | ~paid.any(dim=1, keepdim=True))
    return canvas.commit(tokens, confidence, chosen | free)


def _repeats(tokens: Tensor, sureness: Tensor, distance: int = 3) -> Tensor:
    """(B, L) bool: positions whose token a surer position at most `distance` away has as well; of equals the left."""
    repeats = torch.zeros_like(tokens, dtype=torch.bool)
    for shift in range(1, distance + 1):
        same = tokens[:, shift:] == tokens[:, :-shift]
        right_is_surer = sureness[:, shift:] > sureness[:, :-shift]
        repeats[:, shift:] |= same & ~right_is_surer
        repeats[:, :-shift] |= same & right_is_surer
    return repeats
