"""Writing from left to right with a cache: the likeliest token at each position, a sample, or the best of beams."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from .diffusion_embinv import Canvas
from .favoured_embinv import Favoured

# texts whose logits exist at a time
LOGITS_ROWS = 256
# share of finished texts from which they leave the cache: all of it is copied then, which costs as much as some passes
LEAVING_SHARE = 0.125


class CausalSampler(Protocol):
    """What these functions need of a `Sampler`, which imports this file."""

    model: Any
    config: Any
    condition: Any
    canvas: Canvas
    barred_ids: Tensor | None
    favoured: Favoured | None
    no_end: Tensor
    draws: Tensor | None
    num_forward_passes: int

    def _allowed(self, logits: Tensor, no_end: Tensor, barred: Tensor | None) -> Tensor: ...

    def _choose(
        self, logits: Tensor, no_end: Tensor, barred: Tensor | None, draws: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...

    def _record(self) -> None: ...


class CachedPasses:
    """The causal passes of a `Sampler`'s texts, one token of each a pass.

    rows: (R,) the text that each row of the cache belongs to. Guidance has a second branch, behind all rows.
    conditions: of all texts. condition: of the rows.
    """

    def __init__(self, sampler: CausalSampler) -> None:
        self.sampler, self.cache = sampler, DynamicCache()
        self.conditions = self.condition = sampler.model.causal_condition(sampler.condition)
        self.count, self.device = len(sampler.canvas.ids), sampler.canvas.ids.device
        branches = len(sampler.condition.modulation) // max(self.count, 1)
        self.branches = torch.arange(branches, device=self.device)
        self.rows = torch.arange(self.count, device=self.device)

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` (R,), in that order; a row may stand there several times."""
        self.cache.batch_select_indices((index + len(self.rows) * self.branches[:, None]).flatten())
        if not torch.equal(self.rows[index], self.rows):
            self.rows = self.rows[index]
            self.condition = self.conditions.rows((self.rows + self.count * self.branches[:, None]).flatten())

    def states(self, tokens: Tensor | None) -> Tensor:
        """The head's output (1 or 2, R, H) behind tokens (R,), or at the start, where there are none."""
        self.sampler.num_forward_passes += 1
        ids = None if tokens is None else tokens.repeat(len(self.branches))[:, None]
        states: Tensor = self.sampler.model.next_states(ids, self.condition, self.cache)
        return states.unflatten(0, (len(self.branches), -1))

    def logits(self, states: Tensor) -> Tensor:
        """Logits (R, V) of the next token by states (1 or 2, R, H)."""
        logits: Tensor = self.sampler.model.decoder(states)
        if len(logits) == 1:
            return logits[0]
        conditional, null = logits.float().log_softmax(dim=-1)
        return null + self.sampler.config.guidance_scale * (conditional - null)


class SharedPasses(CachedPasses):
    """The same for texts that have a row in common as long as their vectors and their tokens are the same.

    A search writes several drafts for a vector, and several corrections of a hypothesis: these begin alike.

    rows: (R,) one of the texts of each row. row: (N,) of each text.
    """

    def __init__(self, sampler: CausalSampler) -> None:
        super().__init__(sampler)
        prefix = self.condition.prefix[: self.count]  # made of the vector and the hypothesis
        _, self.row, counts = torch.unique_consecutive(prefix, return_inverse=True, return_counts=True, dim=0)
        self.keep(counts.cumsum(dim=0) - counts)

    def follow(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """The head's output (1 or 2, R, H) of the rows of `texts` (T,), behind the last tokens (N,) of all texts.

        Texts that differ from now on get a row each. The rows of other texts leave, an eighth of them at a time.
        """
        number_of_tokens = self.sampler.model.config.vocab_size
        different, number = torch.unique(self.row[texts] * number_of_tokens + tokens[texts], return_inverse=True)
        parents = different.div(number_of_tokens, rounding_mode="floor")  # sorted
        leaving = len(self.rows) - len(different)
        if leaving >= LEAVING_SHARE * len(self.rows) or (parents[1:] == parents[:-1]).any():
            self.keep(parents)
            self.row[texts] = number
        self.rows[self.row[texts]] = texts
        return self.states(tokens[self.rows])

    def text_logits(self, states: Tensor, texts: Tensor) -> Tensor:
        """Logits (T, V) of the next token of texts (T,), by the states of all rows."""
        rows, number = self.row[texts].unique(return_inverse=True)
        return self.logits(states[:, rows])[number]


def _barred(sampler: CausalSampler, rows: Tensor, position: int) -> tuple[Tensor, Tensor | None]:
    """Of texts (R,): whether none may end here (R,) bool, and the tokens (R,) that are barred here."""
    return sampler.no_end[rows, position], None if sampler.barred_ids is None else sampler.barred_ids[rows, position]


def write_left_to_right(sampler: CausalSampler) -> None:
    """Fill the canvas of a `Sampler` from left to right, one token of every unfinished text a pass.

    1. The condition tokens are read; their last state predicts the first token.
    2. A token is chosen where the canvas is masked, else the known one stays: it is seen from the next pass on.
    3. The tokens of this position alone go through the network: a cache holds keys and values of all before. Texts of
       a vector that are the same so far share a row of it: half of those that 24 samples of a short text would need.
    4. Texts with an end token leave, and their rows of the cache, an eighth of them at a time.
    """
    canvas = sampler.canvas
    columns = torch.arange(canvas.ids.shape[1], device=canvas.ids.device)
    passes = None
    for position in range(len(columns)):
        texts = canvas.masked.any(dim=1).nonzero().squeeze(1)
        if not len(texts):
            break
        passes = passes or SharedPasses(sampler)
        states = passes.follow(texts, canvas.ids[:, position - 1]) if position else passes.states(None)
        is_open = texts[canvas.masked[texts, position]]  # a given token needs no logits
        for rows in is_open.split(LOGITS_ROWS) if len(is_open) else []:
            tokens, confidence = _choose(sampler, passes.text_logits(states, rows), rows, position)
            part = canvas.rows(rows)
            part = part.commit(tokens[:, None], confidence[:, None], (columns == position).expand_as(part.ids))
            canvas.ids[rows], canvas.confidence[rows] = part.ids, part.confidence
        sampler._record()


def _choose(sampler: CausalSampler, logits: Tensor, rows: Tensor, position: int) -> tuple[Tensor, Tensor]:
    """Tokens and their probabilities, (R,) each, of texts (R,) by logits (R, V)."""
    if sampler.favoured is not None:
        logits = sampler.favoured.rows(rows).added(logits, sampler.canvas.ids[rows, :position])
    draws = None if sampler.draws is None else sampler.draws[rows, 0, 0, position]
    return sampler._choose(logits, *_barred(sampler, rows, position), draws)


@dataclass
class Beams:
    """Up to K hypotheses for each of A texts, all of the same length.

    ids, confidence: (A, K, L), beyond that length the canvas that was given. score: (A, K), the sum of log p; −∞ for
    no hypothesis.
    """

    ids: Tensor
    confidence: Tensor
    score: Tensor

    @classmethod
    def of(cls, canvas: Canvas) -> "Beams":
        """One empty hypothesis for each text of a canvas."""
        score = torch.zeros(len(canvas.ids), 1, device=canvas.ids.device, dtype=torch.float32)
        return cls(canvas.ids[:, None].clone(), canvas.confidence[:, None].clone(), score)

    @classmethod
    def joined(cls, parts: Sequence["Beams"]) -> "Beams":
        """Those of several texts."""
        return cls(*(torch.cat(values) for values in zip(*(part._values() for part in parts), strict=True)))

    def rows(self, index: Tensor) -> "Beams":
        """Those of the texts `index`."""
        return Beams(*(values[index] for values in self._values()))

    def put(self, index: Tensor, other: "Beams") -> None:
        """Replace those of the texts `index`."""
        for values, new in zip(self._values(), other._values(), strict=True):
            values[index] = new

    def best(self) -> "Beams":
        """The first hypothesis of each text."""
        return Beams(*(values[:, :1].clone() for values in self._values()))

    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.ids, self.confidence, self.score

    def extended(self, parent: Tensor, token: Tensor, log_p: Tensor, score: Tensor, position: int) -> "Beams":
        """The hypotheses `parent` (A, k), each with a token (A, k) at `position`; a given token stays as it is."""
        index = torch.arange(len(parent), device=parent.device)[:, None]
        ids, confidence = self.ids[index, parent], self.confidence[index, parent]
        given = confidence[..., position] > 0
        ids[..., position] = token
        confidence[..., position] = log_p[index, parent, token].exp().masked_fill(given, 1.0)
        return Beams(ids, confidence, score)


def write_beams(sampler: CausalSampler, num_beams: int) -> None:
    """Fill the canvas of a `Sampler` from left to right by beam search.

    As `write_left_to_right`, but each text has up to `num_beams` hypotheses:

    1. Every hypothesis is extended by every token; the extensions of highest Σ log p go on, and their rows of the
       cache. Where the canvas has a token, it is the only one; its log p counts, too.
    2. A hypothesis with an end, or of the canvas' length, is finished. Its score is Σ log p over the number of its
       tokens, the end included, as that of transformers with a `length_penalty` of 1. The best finished one is kept.
    3. A text is done when no hypothesis that goes on can reach a higher score: Σ log p does not rise, and no text is
       longer than its canvas.
    """
    passes, length = CachedPasses(sampler), sampler.canvas.ids.shape[1]
    finished = Beams.of(sampler.canvas)
    passes.keep(sampler.canvas.masked.any(dim=1).nonzero().squeeze(1))  # the others are whole as they are
    beams = Beams.of(sampler.canvas.rows(passes.rows))
    finished.score.fill_(-torch.inf)
    for position in range(length):
        width = beams.score.shape[1]
        texts = passes.rows[::width]  # (A,)
        if not len(texts):
            break
        states = passes.states(beams.ids[..., position - 1].flatten() if position else None)
        beams, parent, ended = _extend(passes, beams, states, position, num_beams)
        better = (ended.score > finished.score[texts]).squeeze(1)
        finished.put(texts[better], ended.rows(better))
        is_done = (finished.score[texts] >= beams.score[:, :1] / length).squeeze(1)
        leading = beams.best()
        leading.put(is_done, finished.rows(texts[is_done]))
        sampler.canvas.ids[texts], sampler.canvas.confidence[texts] = leading.ids[:, 0], leading.confidence[:, 0]
        sampler._record()
        going = (~is_done).nonzero().squeeze(1)
        passes.keep((going[:, None] * width + parent[going]).flatten())
        beams = beams.rows(going)


def _extend(
    passes: CachedPasses, beams: Beams, states: Tensor, position: int, num_beams: int
) -> tuple[Beams, Tensor, Beams]:
    """All texts a token further, by the head's output (1 or 2, A · K, H).

    Returns:
        The hypotheses that go on, the best first; which hypothesis (A, k) each of them extends; and the best one
        (A, 1) that ends here, with its mean log p as score.
    """
    count, width = beams.score.shape
    states = states.unflatten(1, (count, width))
    parts = [
        _extend_part(passes, beams.rows(part), states[:, part], passes.rows[part * width], position, num_beams)
        for part in torch.arange(count, device=passes.device).split(max(1, LOGITS_ROWS // width))
    ]
    going, parents, ended = zip(*parts, strict=True)
    return Beams.joined(going), torch.cat(parents), Beams.joined(ended)


def _extend_part(
    passes: CachedPasses, beams: Beams, states: Tensor, rows: Tensor, position: int, num_beams: int
) -> tuple[Beams, Tensor, Beams]:
    """The same of the texts `rows` (R,), by states (1 or 2, R, K, H)."""
    width, end = beams.score.shape[1], passes.sampler.canvas.end_token_id
    logits = passes.logits(states.flatten(1, 2))
    given = beams.ids[..., position].flatten()
    log_p = _log_p(passes.sampler, logits, given, rows.repeat_interleave(width), position).unflatten(0, (-1, width))
    total = beams.score[..., None] + log_p  # (R, K, V)
    if position + 1 == beams.ids.shape[2]:  # of the canvas' length: every token ends a text
        score, index = total.flatten(1).max(dim=1, keepdim=True)
        last = index // total.shape[2], index % total.shape[2]
    else:
        score, index = total[..., end].max(dim=1, keepdim=True)
        last = index, torch.full_like(index, end)
    ended = beams.extended(*last, log_p, score / (position + 1), position)
    ended.ids[..., position + 1 :] = end
    ended.confidence[..., position + 1 :] = ended.confidence[..., position, None]
    total[..., end] = -torch.inf
    score, index = total.flatten(1).topk(min(num_beams, total.shape[1] * total.shape[2]))
    parent = index // total.shape[2]
    return beams.extended(parent, index % total.shape[2], log_p, score, position), parent, ended


def _log_p(sampler: CausalSampler, logits: Tensor, given: Tensor, rows: Tensor, position: int) -> Tensor:
    """log p (R, V) of texts (R,) by logits (R, V), that of a token of the canvas alone where `given` (R,) is one."""
    fixed = (given != sampler.canvas.mask_token_id).nonzero().squeeze(1)
    tokens = given[fixed, None]
    known = logits[fixed].float().log_softmax(dim=-1).gather(1, tokens)  # before any is barred: this one is there
    log_p = sampler._allowed(logits, *_barred(sampler, rows, position)).log_softmax(dim=-1)
    log_p[fixed] = torch.full_like(log_p[fixed], -torch.inf).scatter(1, tokens, known)
    return log_p
