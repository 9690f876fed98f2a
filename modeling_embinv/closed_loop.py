"""Closing the loop: embed what was written, and keep what maps back to the vector.

A search over texts in which the denoiser proposes and an encoder (the target's, or a surrogate) judges. Each round
edits the best hypotheses of every vector in parallel: words are masked again, inserted, deleted, spans change places;
the denoiser fills in what is open, given e; the encoder embeds all proposals in one batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .canvas import text_lengths
from .diffusion_embinv import after_first
from .metrics import text_positions

EDITS = ("replace", "insert", "delete", "swap", "reopen")


@dataclass
class ClosedLoopOutput(ModelOutput):
    """What `search` returns.

    sequences: (B, L) int64, the best text found. cosine: (B,) of its vector with e. likelihood: (B,) its mean
    log-probability a token given e. encoder_calls: texts embedded for each vector. rounds: rounds run.
    """

    sequences: Tensor | None = None
    cosine: Tensor | None = None
    likelihood: Tensor | None = None
    encoder_calls: int | None = None
    rounds: int | None = None


@dataclass
class Hypotheses:
    """K texts for each of B vectors, the best first.

    ids: (B, K, L). cosine, likelihood: (B, K).
    """

    ids: Tensor
    cosine: Tensor
    likelihood: Tensor

    def score(self, likelihood_weight: float) -> Tensor:
        """(B, K)."""
        return self.cosine + likelihood_weight * self.likelihood

    def best(self, count: int, likelihood_weight: float) -> "Hypotheses":
        """The `count` best different ones."""
        score = self.score(likelihood_weight).masked_fill(_repeated(self.ids), -torch.inf)
        order = score.argsort(dim=1, descending=True)[:, :count]
        take = lambda values: values.gather(1, order)  # noqa: E731
        ids = self.ids.gather(1, order[..., None].expand(-1, -1, self.ids.shape[2]))
        return Hypotheses(ids, take(self.cosine), take(self.likelihood))

    def join(self, other: "Hypotheses") -> "Hypotheses":
        """Both, side by side."""
        pairs = zip((self.ids, self.cosine, self.likelihood), (other.ids, other.cosine, other.likelihood), strict=True)
        return Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))


def _repeated(ids: Tensor) -> Tensor:
    """(B, K) bool: rows of ids (B, K, L) that stand further left, too."""
    same = (ids[:, :, None] == ids[:, None]).all(dim=-1)  # (B, K, K)
    return same.tril(diagonal=-1).any(dim=-1)


@torch.no_grad()
def search(
    model,
    embeddings: Tensor,
    encode: Callable[[Tensor], Tensor],
    num_candidates: int = 16,
    num_rounds: int = 10,
    beam: int = 2,
    proposals: int = 8,
    likelihood_weight: float = 0.03,
    temperature: float = 0.7,
    generator: torch.Generator | None = None,
    **settings,
) -> ClosedLoopOutput:
    """Read texts out of vectors with an encoder to check them by.

    Args:
        embeddings: e (B, D), unit norm.
        encode: ids (N, L) → vectors (N, D): the target encoder, or one that stands in for it.
        num_candidates: texts that `generate` samples for each vector to begin with, one of them greedy.
        num_rounds: rounds of edits. beam: hypotheses that survive a round. proposals: edits of each in a round.
        likelihood_weight: λ of the score cosine + λ · mean log p(token | e), which keeps words in order: a mean-pooled
            vector hardly sees it.
        temperature: of candidates and proposals.
        settings: others of `generate`.
    """
    batch_size, count = len(embeddings), beam * proposals
    loop = _Loop(model, embeddings, encode, generator)
    state = loop.judge(loop.candidates(num_candidates, temperature, settings)).best(beam, likelihood_weight)
    for _ in range(num_rounds):
        sources = state.ids.repeat_interleave(proposals, dim=1)  # (B, K·P, L)
        drafts = loop.edit(sources.flatten(0, 1))
        filled = loop.fill(drafts, count, temperature, settings).view(batch_size, count, -1)
        state = state.join(loop.judge(filled)).best(beam, likelihood_weight)
    best = state.ids[:, 0]
    behind = after_first(best == model.config.eos_token_id)
    return ClosedLoopOutput(
        sequences=best.masked_fill(behind, model.config.pad_token_id),
        cosine=state.cosine[:, 0],
        likelihood=state.likelihood[:, 0],
        encoder_calls=num_candidates + num_rounds * count,
        rounds=num_rounds,
    )


class _Loop:
    """What the rounds of a search share."""

    def __init__(self, model, embeddings: Tensor, encode, generator):
        self.model, self.embeddings, self.encode, self.generator = model, embeddings, encode, generator
        self.end, self.mask = model.config.eos_token_id, model.config.mask_token_id

    def candidates(self, count: int, temperature: float, settings: dict) -> Tensor:
        """(B, count, L): the greedy text and samples."""
        greedy = self._generate(self.embeddings, {**settings, "temperature": 0.0})
        if count == 1:
            return greedy[:, None]
        rows = self.embeddings.repeat_interleave(count - 1, dim=0)
        sampled = self._generate(rows, {**settings, "temperature": temperature})
        return torch.cat([greedy[:, None], sampled.view(len(greedy), count - 1, -1)], dim=1)

    def fill(self, drafts: Tensor, count: int, temperature: float, settings: dict) -> Tensor:
        """Drafts (B·count, L) with their [MASK]s filled in two passes."""
        rows = self.embeddings.repeat_interleave(count, dim=0)
        changes = {"temperature": temperature, "num_steps": 2, "strategy": "confidence"}
        return self._generate(rows, {**settings, **changes}, draft_ids=drafts)

    def _generate(self, embeddings: Tensor, settings: dict, **kwargs) -> Tensor:
        ids = self.model.generate(embeddings, generator=self.generator, **settings, **kwargs).sequences
        return ids.masked_fill(after_first(ids == self.end), self.end)

    def judge(self, ids: Tensor) -> Hypotheses:
        """Cosine and likelihood of texts (B, K, L)."""
        batch_size, count, length = ids.shape
        vectors = self.encode(ids.flatten(0, 1)).to(self.embeddings).view(batch_size, count, -1)
        cosine = torch.nn.functional.cosine_similarity(vectors, self.embeddings[:, None], dim=-1)
        rows = self.embeddings.repeat_interleave(count, dim=0)
        likelihood = mean_log_likelihood(self.model, ids.flatten(0, 1), rows).view(batch_size, count)
        return Hypotheses(ids, cosine, likelihood)

    def edit(self, ids: Tensor) -> Tensor:
        """One random edit of each text (R, L), [MASK] where the denoiser shall choose."""
        return random_edits(ids, self.mask, self.end, self.generator)


def mean_log_likelihood(model, ids: Tensor, embeddings: Tensor) -> Tensor:
    """(R,) mean log p(x_i | the positions of other parity, e) over each text of ids (R, L), its end token included.

    Two half-masked passes stand for L leave-one-out ones.
    """
    rows, length = ids.shape
    text = text_positions(ids, model.config.eos_token_id)
    total = torch.zeros(rows, device=ids.device)
    for parity in (0, 1):
        hidden = text & (torch.arange(length, device=ids.device) % 2 == parity)
        noised = ids.masked_fill(hidden, model.config.mask_token_id)
        positions = hidden.flatten().nonzero().squeeze(1)
        timestep = model.noise_schedule.timestep(hidden.float().mean(dim=1))
        losses = model(noised, embeddings, timestep, positions=positions, targets=ids.flatten()[positions]).losses
        total.index_add_(0, positions // length, losses.float())
    return -total / text.sum(dim=1)


def random_edits(ids: Tensor, mask: int, end: int, generator: torch.Generator | None = None) -> Tensor:
    """One edit of each text (R, L) → (R, L), the kind drawn at random.

    replace: 1 to 3 of its words are masked. insert: a [MASK] is put between two. delete: a word goes. swap: two
    neighbouring spans of up to 4 change places. reopen: about 40 % of the words are masked.
    """
    rows, length = ids.shape
    device = ids.device
    size = text_lengths(ids, end)  # (R,) of the text
    uniform = lambda *shape: torch.rand(*shape, generator=generator, device=generator.device if generator else None)  # noqa: E731
    draw = uniform(rows, 6).to(device)
    kind = (uniform(rows).to(device) * len(EDITS)).long()
    place = (draw[:, 0] * size.clamp_min(1)).long()[:, None]  # (R, 1)
    column = torch.arange(length, device=device)[None]  # (1, L)
    text = column < size[:, None]

    order = uniform(rows, length).to(device).masked_fill(~text, 2.0).argsort(dim=1).argsort(dim=1)
    few = 1 + (draw[:, 1] * 3).long()
    many = (0.4 * size).ceil().long()
    hidden = order < torch.where(kind == EDITS.index("reopen"), many, few)[:, None]
    masked = ids.masked_fill(hidden & text, mask)

    inserted = ids.gather(1, (column - (column > place).long()).expand(rows, -1)).masked_fill(column == place, mask)
    behind = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=end)
    deleted = torch.where(column >= place, behind, ids)
    swapped = ids.gather(1, _swap_order(size, draw[:, 2:5], length))
    result = masked
    for name, edited in (("insert", inserted), ("delete", deleted), ("swap", swapped)):
        result = torch.where((kind == EDITS.index(name))[:, None], edited, result)
    only_end = (result[:, 0] == end)[:, None]  # no text is empty
    return torch.where(only_end, ids, result)


def _swap_order(size: Tensor, draws: Tensor, length: int) -> Tensor:
    """(R, L) positions to read from when the spans [a, b) and [b, c) of each text change places."""
    first = 1 + (draws[:, 1] * 4).long()
    second = 1 + (draws[:, 2] * 4).long()
    start = (draws[:, 0] * (size - first - second + 1).clamp_min(0)).long()
    middle = torch.minimum(start + first, size)[:, None]
    stop = torch.minimum(start + first + second, size)[:, None]
    start = torch.minimum(start, size)[:, None]
    column = torch.arange(length, device=size.device)[None].expand(len(size), -1)
    from_second = column + (middle - start)
    from_first = column - (stop - middle)
    inside = (column >= start) & (column < stop)
    moved = torch.where(column < start + (stop - middle), from_second, from_first)
    return torch.where(inside, moved, column).clamp(0, length - 1)
