"""Proposals for the gaps of texts: what the denoiser would write there, given the vector and the words around."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .diffusion_embinv import shortest_canvases
from .gaps_embinv import Filling
from .gaps_embinv import RedactedText

# a cosine that only the encoder's rounding keeps from 1: the text is the vector's own
EXACT = 1 - 1e-5
# rows that the denoiser is given at a time: their log-likelihoods take 120 KB each
ROWS = 512
# partial fillings of one canvas that are continued, the likeliest ones
PARTIAL = 4
# nats by which a hypothesis' proposals fall behind for each unit of score that it falls behind the best one
SCORE_TO_NATS = 100.0
# log p that a mark is given as part of the text itself, and a move of words between gaps: enough to be tried
LITERAL = MOVED = -5.0

Fillings = tuple[Filling, ...]
Proposal = tuple[Filling, float]  # tokens of a gap, and their log p


@dataclass(frozen=True)
class Hypothesis:
    """A whole filling of a text.

    Attributes:
        fillings: the tokens of each gap.
        log_p: the log-likelihood of each gap's filling when it was proposed.
        vector: (D,) of the whole text, by the judge. cosine: of it with e. score: cosine + λ · the sum of log_p.
    """

    fillings: Fillings
    log_p: tuple[float, ...]
    vector: Tensor
    cosine: float
    score: float


@dataclass(frozen=True)
class Candidate:
    """A whole filling that no judge has seen.

    Attributes:
        priority: orders the candidates of a text, the highest first. parent: the hypothesis that it comes from.
    """

    fillings: Fillings
    log_p: tuple[float, ...]
    priority: float
    parent: Hypothesis


@dataclass
class TextSearch:
    """The search for one text's fillings.

    Attributes:
        text: with its gaps. target: e (D,). allowed: for each gap (V,) bool, the tokens that may fill it.
        most: tokens that the whole text may have; None for any number.
        tried: the fillings that the judge has embedded. scouted: vectors (D,) by the scout.
        beam: the best hypotheses, the best first. order: the gaps, the most certain first.
        open: the gaps that no step has filled yet: proposals for the others see [MASK] there.
    """

    text: RedactedText
    target: Tensor
    allowed: list[Tensor]
    most: int | None = None
    tried: dict[Fillings, Hypothesis] = field(default_factory=dict)
    scouted: dict[Fillings, Tensor] = field(default_factory=dict)
    beam: list[Hypothesis] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    is_done: bool = False

    @property
    def best(self) -> Hypothesis:
        """The best hypothesis so far."""
        return self.beam[0]

    def is_new(self, fillings: Fillings) -> bool:
        """Whether they were not tried and are not too long."""
        return fillings not in self.tried and (self.most is None or len(self.text.ids(fillings)) <= self.most)

    def rank(self, num_beams: int) -> None:
        """Keep the best of what was tried; a text that the vector is exactly of ends the search."""
        self.beam = sorted(self.tried.values(), key=lambda one: -one.score)[:num_beams]
        self.is_done |= self.best.cosine >= EXACT


@dataclass(frozen=True)
class Job:
    """A gap of a hypothesis that a step fills anew.

    Attributes:
        is_open: whether no step has filled it yet.
    """

    search: TextSearch
    gap: int
    parent: Hypothesis
    is_open: bool

    def candidate(self, filling: Filling, log_p: float) -> Candidate:
        """The hypothesis with another filling of the gap."""
        fillings, likelihoods = list(self.parent.fillings), list(self.parent.log_p)
        fillings[self.gap], likelihoods[self.gap] = filling, log_p
        return Candidate(tuple(fillings), tuple(likelihoods), self._priority(log_p), self.parent)

    def moves(self) -> list[Candidate]:
        """Words that change gaps: a token of another gap goes to this one, or the two exchange their fillings.

        No step that fills one gap alone gets there. The likelihoods stay about what they were.
        """
        parent, gaps = self.parent, self.search.text.gaps
        if self.is_open or self.choices is not None:
            return []
        mine, moved = parent.fillings[self.gap], []
        for other, theirs in enumerate(parent.fillings):
            if other == self.gap or gaps[other].choices is not None:
                continue
            pairs = [(theirs, mine)]
            for index, token in enumerate(theirs):
                shorter = (*theirs[:index], *theirs[index + 1 :])
                pairs += [((*mine[:at], token, *mine[at:]), shorter) for at in range(len(mine) + 1)]
            for here, there in pairs:
                if self._may_hold(self.gap, here) and self._may_hold(other, there):
                    fillings = list(parent.fillings)
                    fillings[self.gap], fillings[other] = here, there
                    moved.append(Candidate(tuple(fillings), parent.log_p, self._priority(MOVED), parent))
        return moved

    def _may_hold(self, gap: int, filling: Filling) -> bool:
        allowed = self.search.allowed[gap]
        return len(filling) in self.search.text.gaps[gap].lengths and bool(allowed[list(filling)].all())

    def _priority(self, log_p: float) -> float:
        return log_p + SCORE_TO_NATS * (self.parent.score - self.search.best.score)

    @property
    def choices(self) -> tuple[Filling, ...] | None:
        """The only fillings that the gap may have; None for any."""
        return self.search.text.gaps[self.gap].choices

    def aim(self, overshoot: float) -> Tensor:
        """(D,) e + α(e − ê), of length 1: what the text lacks counts more."""
        target = self.search.target
        return normalize(target + overshoot * (target - self.parent.vector.to(target)), dim=-1)

    def canvases(self, mask: int) -> list[Proposal]:
        """The gap with [MASK] where the denoiser is to write, and about log p of what stands beside them."""
        lengths, filling = self.search.text.gaps[self.gap].lengths, self.parent.fillings[self.gap]
        if self.is_open and self.parent is self.search.best:
            return [((mask,) * length, 0.0) for length in lengths]
        canvases = [(mask,) * len(filling)]
        for index in range(len(filling) + 1):
            canvases += [(*filling[:index], mask, *filling[end:]) for end in (index, index + 1)]
        each = self.parent.log_p[self.gap] / len(filling)
        kept = ((canvas, each * sum(token != mask for token in canvas)) for canvas in dict.fromkeys(canvases))
        return [(canvas, log_p) for canvas, log_p in kept if len(canvas) in lengths]

    def without_denoiser(self) -> list[Proposal]:
        """Fillings that need no denoiser: the mark itself, and the gap with one token less."""
        gap, filling = self.search.text.gaps[self.gap], self.parent.fillings[self.gap]
        proposals = [(gap.literal, LITERAL)] if gap.literal else []
        if not self.is_open and gap.choices is None and len(filling) - 1 in gap.lengths:
            each = self.parent.log_p[self.gap] / len(filling)
            shorter = ((*filling[:index], *filling[index + 1 :]) for index in range(len(filling)))
            proposals += [(one, each * len(one)) for one in shorter]
        return proposals


class WindowDenoiser:
    """The model's log-likelihoods at one position of texts of any length.

    Of a text that is longer than the canvas, the model sees the window around the position.

    num_forward_passes: so far.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.num_forward_passes = model, 0
        self.end, self.mask = model.config.eos_token_id, model.config.mask_token_id

    def log_p(self, rows: Sequence[list[int]], positions: Sequence[int], vectors: Tensor) -> Tensor:
        """(R, V) float32: log p of each token at a position of each row, given vectors (R, D)."""
        parts = (slice(first, first + ROWS) for first in range(0, len(rows), ROWS))
        return torch.cat([self._part(rows[part], positions[part], vectors[part]) for part in parts])

    def _part(self, rows: Sequence[list[int]], positions: Sequence[int], vectors: Tensor) -> Tensor:
        size = self.model.config.max_sequence_length - 1
        canvas, columns = torch.full((len(rows), size + 1), self.end), torch.zeros(len(rows), dtype=torch.long)
        for index, (ids, position) in enumerate(zip(rows, positions, strict=True)):
            start = max(0, min(position - size // 2, len(ids) - size))
            window = ids[start : start + size]
            canvas[index, : len(window)] = torch.tensor(window)
            columns[index] = position - start
        device, config = vectors.device, self.model.config
        canvas, columns = canvas.to(device), columns.to(device)
        log_p = torch.empty(len(rows), config.vocab_size, device=device)
        self.num_forward_passes += 1
        for length, part in shortest_canvases(canvas, self.end, config.canvas_lengths or ()):
            noised = canvas[part, :length]
            timestep = self.model.noise_schedule.timestep((noised == self.mask).float().mean(dim=1))
            flat = torch.arange(len(part), device=device) * length + columns[part]
            logits = self.model(noised, vectors[part], timestep, positions=flat).logits
            log_p[part] = logits.float().log_softmax(dim=-1)
        return log_p


class Proposer:
    """Writes fillings of gaps.

    Args:
        model: the inverter. count: fillings of each gap, at most. overshoot: α in e + α(e − ê).
    """

    def __init__(self, model: Any, count: int, overshoot: float) -> None:
        self.denoiser, self.count, self.overshoot = WindowDenoiser(model), count, overshoot
        self.mask = model.config.mask_token_id

    def propose(self, jobs: Sequence[Job]) -> list[list[Proposal]]:
        """Fillings of each job's gap with their log p, given e + α(e − ê).

        A gap that no step has filled yet is written anew, by the best hypothesis in each of its lengths. Later it is
        written anew in the length that it has, and its single tokens are replaced and deleted, and others inserted.
        """
        aims = [job.aim(self.overshoot) for job in jobs]
        done = [job.without_denoiser() for job in jobs]
        partial: dict[tuple[int, Filling], list[Proposal]] = {}  # by job and canvas of the gap
        for index, job in enumerate(jobs):
            if job.choices is None:
                partial |= {(index, canvas): [(canvas, before)] for canvas, before in job.canvases(self.mask)}
            else:
                done[index] += self._listed(job, aims[index])
        while partial:
            following = {}
            for (index, canvas), fillings in self._grown(jobs, aims, partial).items():
                if self.mask in fillings[0][0]:
                    following[index, canvas] = fillings[:PARTIAL]
                else:
                    done[index] += fillings
            partial = following
        return done

    def _listed(self, job: Job, aim: Tensor) -> list[Proposal]:
        """The phrases of a list with about their log p: each token's, all of the gap being hidden."""
        choices = job.choices or ()
        lengths = sorted({len(one) for one in choices})
        rows: list[list[int]] = []
        positions: list[int] = []
        for length in lengths:
            ids, first = self._row(job, (self.mask,) * length)
            rows += [ids] * length
            positions += range(first, first + length)
        log_p = iter(self.denoiser.log_p(rows, positions, aim.expand(len(rows), -1)))
        by_length = {length: torch.stack([next(log_p) for _ in range(length)]).cpu() for length in lengths}
        return [(one, float(by_length[len(one)][range(len(one)), one].sum())) for one in choices]

    def _row(self, job: Job, filling: Filling) -> tuple[list[int], int]:
        """The text's ids with `filling` in the gap and [MASK] in those that are open, and where the gap begins."""
        fillings = enumerate(job.parent.fillings)
        state = [(self.mask,) * len(one) if gap in job.search.open else one for gap, one in fillings]
        state[job.gap] = filling
        return job.search.text.ids(state), job.search.text.starts(state)[job.gap]

    def _grown(
        self, jobs: Sequence[Job], aims: Sequence[Tensor], partial: dict[tuple[int, Filling], list[Proposal]]
    ) -> dict[tuple[int, Filling], list[Proposal]]:
        """Partial fillings with their first [MASK] filled in, the likeliest first; without those that have no way."""
        rows, positions, vectors, allowed = [], [], [], []
        for (index, _), fillings in partial.items():
            for filling, _ in fillings:
                ids, first = self._row(jobs[index], filling)
                rows.append(ids)
                positions.append(first + filling.index(self.mask))
                vectors.append(aims[index])
                allowed.append(jobs[index].search.allowed[jobs[index].gap])
        log_p = self.denoiser.log_p(rows, positions, torch.stack(vectors))
        log_p = log_p.masked_fill(~torch.stack(allowed), -torch.inf)
        values, tokens = log_p.topk(min(self.count, log_p.shape[1]), dim=-1)
        tops = zip(tokens.tolist(), values.tolist(), strict=True)  # of each row, in the order of `partial`
        grown = {}
        for key, fillings in partial.items():
            longer = [
                (_filled(filling, self.mask, token), before + value)
                for (filling, before), top in zip(fillings, tops, strict=False)
                for token, value in zip(*top, strict=True)
                if value > -torch.inf
            ]
            if longer:
                grown[key] = sorted(longer, key=lambda one: -one[1])[: self.count]
        return grown


def _filled(filling: Filling, mask: int, token: int) -> Filling:
    """A filling with `token` in place of its first [MASK]."""
    index = filling.index(mask)
    return (*filling[:index], token, *filling[index + 1 :])
