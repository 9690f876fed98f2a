"""Proposals for the gaps of texts: what the denoiser would write there, given the vector and the words around."""

import math
from collections.abc import Callable
from collections.abc import Sequence
from heapq import nlargest
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .diffusion_embinv import shortest_canvases
from .gap_states_embinv import Filling
from .gap_states_embinv import Job
from .gap_states_embinv import Proposal
from .gap_states_embinv import spliced

# rows that the denoiser is given at a time: their log-likelihoods take 120 KB each
ROWS = 512
# partial fillings of one canvas that are continued, the likeliest ones
PARTIAL = 4


class WindowDenoiser:
    """The model's log-likelihoods at one position of texts of any length.

    Of a text that is longer than the canvas, the model sees the window around the position.

    num_forward_passes: so far.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.num_forward_passes = model, 0
        self.end, self.mask = model.config.eos_token_id, model.config.mask_token_id

    def log_p(
        self,
        rows: Sequence[list[int]],
        positions: Sequence[int],
        vectors: Tensor,
        prior: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """(R, V) float32: log p of each token at a position of each row, given vectors (R, D).

        prior: (V,) for each row, added to log p.
        """
        parts = (slice(first, first + ROWS) for first in range(0, len(rows), ROWS))
        log_p = torch.cat([self._part(rows[part], positions[part], vectors[part]) for part in parts])
        for row, own in zip(log_p, prior or (), strict=False):
            row += own
        return log_p

    def window(self, ids: list[int], position: int) -> tuple[int, list[int]]:
        """What the canvas holds of a text: where it begins, and the tokens around a position."""
        size = self.model.config.max_sequence_length - 1
        start = max(0, min(position - size // 2, len(ids) - size))
        return start, ids[start : start + size]

    def _part(self, rows: Sequence[list[int]], positions: Sequence[int], vectors: Tensor) -> Tensor:
        length = self.model.config.max_sequence_length
        canvas, columns = torch.full((len(rows), length), self.end), torch.zeros(len(rows), dtype=torch.long)
        for index, (ids, position) in enumerate(zip(rows, positions, strict=True)):
            start, window = self.window(ids, position)
            canvas[index, : len(window)] = torch.tensor(window)
            columns[index] = position - start
        device, config = vectors.device, self.model.config
        canvas, columns = canvas.to(device), columns.to(device)
        log_p = torch.empty(len(rows), config.vocab_size, device=device, dtype=torch.float32)
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
        model: the inverter. overshoot: α in e + α(e − ê).
        embed: rows of token ids → vectors (N, D), the surrogate; None where there is none.
    """

    def __init__(
        self,
        model: Any,
        overshoot: float,
        embed: Callable[[list[list[int]]], Tensor] | None = None,
    ) -> None:
        self.denoiser, self.overshoot, self.embed = WindowDenoiser(model), overshoot, embed
        self.mask, self.longest = model.config.mask_token_id, model.config.surrogate_length

    def propose(self, jobs: Sequence[Job]) -> list[list[Proposal]]:
        """Fillings of each job's gap with their log p, given e + α(e − ê).

        A gap that no step has filled yet is written anew, for the best hypothesis in each of its lengths, for the
        others in the one that it has. Later its single tokens are also replaced and deleted, and others inserted.
        """
        aims = self._aims(jobs)
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
            partial = self._promising(jobs, done, following) if following else {}
        return done

    def _promising(
        self, jobs: Sequence[Job], done: list[list[Proposal]], partial: dict[tuple[int, Filling], list[Proposal]]
    ) -> dict[tuple[int, Filling], list[Proposal]]:
        """The partial fillings that can still be among the first ones of their text: more tokens only lower log p."""
        complete: dict[int, list[float]] = {}
        for job, proposals in zip(jobs, done, strict=True):
            new = (job.candidate(*one) for one in proposals)
            priorities = [one.priority for one in new if job.search.is_new(one.fillings)]
            complete.setdefault(id(job.search), []).extend(priorities)
        floors = {}
        for job in jobs:
            found = complete[id(job.search)]
            floors[id(job.search)] = min(nlargest(job.count, found)) if len(found) >= job.count else -math.inf
        kept = {}
        for key, fillings in partial.items():
            job = jobs[key[0]]
            if good := [one for one in fillings if job.priority(one[1]) >= floors[id(job.search)]]:
                kept[key] = good
        return kept

    def _aims(self, jobs: Sequence[Job]) -> list[Tensor]:
        """(D,) for each job: the vector that its gap is written for.

        A window of a long text has another vector than the whole. If a vector is the mean of N tokens' states, what
        the whole lacks, e − ê, is N / W times as much in a window of W tokens with vector ŵ: the aim is then
        ŵ + (1 + α) · N / W · (e − ê), which is e + α(e − ê) where the window is the whole.
        """
        texts = [job.search.text.ids(job.parent.fillings) for job in jobs]
        starts = [job.search.text.starts(job.parent.fillings)[job.gap] for job in jobs]
        windows = [self.denoiser.window(ids, start)[1] for ids, start in zip(texts, starts, strict=True)]
        aims = [job.aim(self.overshoot) for job in jobs]
        cut = [index for index, ids in enumerate(texts) if len(windows[index]) < len(ids)]
        if cut and self.embed is not None:
            for index, vector in zip(cut, self.embed([windows[index] for index in cut]), strict=True):
                read = texts[index][: self.longest]
                factor = (1 + self.overshoot) * len(read) / len(windows[index])
                aims[index] = normalize(vector.to(aims[index]) + factor * jobs[index].lacking, dim=-1)
        return aims

    def _listed(self, job: Job, aim: Tensor) -> list[Proposal]:
        """The likeliest phrases of a list with about their log p: each token's, all of the gap being hidden."""
        if job.is_open and job.parent is not job.search.best:  # as for a free gap: it is filled for the best one alone
            return []
        choices = job.choices or {}
        lengths = sorted({len(one) for one in choices})
        rows: list[list[int]] = []
        positions: list[int] = []
        for length in lengths:
            ids, first = self._row(job, (self.mask,) * length)
            rows += [ids] * length
            positions += range(first, first + length)
        log_p = iter(self.denoiser.log_p(rows, positions, aim.expand(len(rows), -1)))
        proposals: list[Proposal] = []
        for length in lengths:
            listed = [one for one in choices if len(one) == length]
            by_offset = torch.stack([next(log_p) for _ in range(length)]).cpu()  # (length, V)
            total = by_offset.gather(1, torch.tensor(listed).T).sum(dim=0).tolist()
            proposals += zip(listed, total, strict=True)
        return sorted(proposals, key=lambda one: -one[1])[: job.count]

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
        rows, positions, vectors, prior = [], [], [], []
        for (index, _), fillings in partial.items():
            for filling, _ in fillings:
                ids, first = self._row(jobs[index], filling)
                rows.append(ids)
                positions.append(first + filling.index(self.mask))
                vectors.append(aims[index])
                prior.append(jobs[index].search.log_prior[jobs[index].gap])
        log_p = self.denoiser.log_p(rows, positions, torch.stack(vectors), prior)
        most = max(job.count for job in jobs)
        values, tokens = log_p.topk(min(most, log_p.shape[1]), dim=-1)
        tops = zip(tokens.tolist(), values.tolist(), strict=True)  # of each row, in the order of `partial`
        grown = {}
        for key, fillings in partial.items():
            longer = [
                (spliced(filling, first := filling.index(self.mask), first + 1, token), before + value)
                for (filling, before), top in zip(fillings, tops, strict=False)
                for token, value in zip(*top, strict=True)
                if value > -torch.inf
            ]
            if longer:
                grown[key] = sorted(longer, key=lambda one: -one[1])[: jobs[key[0]].count]
        return grown
