"""The gap search: which words a redacted text hides, given its vector.

The denoiser proposes fillings of one gap, given e and what stands around it. A judge embeds the whole texts, and the
cosine of their vectors with e ranks them. A beam of whole fillings goes over the gaps, the most certain one first, and
over all of them again until no text improves. Where the encoder judges and the model has a surrogate, the surrogate is
its scout: it chooses the fillings that the encoder embeds.
"""

from collections.abc import Callable
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
from .settings_embinv import FillSettings

# a cosine that only the encoder's rounding keeps from 1: the text is the vector's own
EXACT = 1 - 1e-5
# rows that the denoiser is given at a time: their log-likelihoods take 120 KB each
ROWS = 512
# partial fillings of one length that are continued, the likeliest ones
PARTIAL = 4
# nats by which a hypothesis' proposals fall behind for each unit of score that it falls behind the best one
SCORE_TO_NATS = 100.0
# log p that a mark is given as part of the text itself: enough to be tried
LITERAL = -5.0

Fillings = tuple[Filling, ...]


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
        tried: the fillings that the judge has embedded. scouted: vectors (D,) by the scout.
        beam: the best hypotheses, the best first. order: the gaps, the most certain first.
        open: the gaps that no step has filled yet: proposals for the others see [MASK] there.
    """

    text: RedactedText
    target: Tensor
    allowed: list[Tensor]
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

    def rank(self, num_beams: int) -> None:
        """Keep the best of what was tried; a text that the vector is exactly of ends the search."""
        self.beam = sorted(self.tried.values(), key=lambda one: -one.score)[:num_beams]
        self.is_done |= self.best.cosine >= EXACT


@dataclass
class TextJudge:
    """What embeds whole texts.

    Attributes:
        embed: texts and the fillings of each → unit vectors (N, D). kind: "encoder" or "surrogate".
        likelihood_weight: λ of the score.
        num_calls: texts embedded so far.
    """

    embed: Callable[[list[tuple[RedactedText, Fillings]]], Tensor]
    kind: str
    likelihood_weight: float
    num_calls: int = 0

    def vectors(self, texts: list[tuple[RedactedText, Fillings]]) -> Tensor:
        """(N, D) float32 on the CPU."""
        self.num_calls += len(texts)
        return self.embed(texts).float().cpu()


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
        parts = range(0, len(rows), ROWS)
        return torch.cat([self._part(*(x[i : i + ROWS] for x in (rows, positions, vectors))) for i in parts])

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
        for length, index in shortest_canvases(canvas, self.end, config.canvas_lengths or ()):
            ids = canvas[index, :length]
            timestep = self.model.noise_schedule.timestep((ids == self.mask).float().mean(dim=1))
            flat = torch.arange(len(index), device=device) * length + columns[index]
            log_p[index] = self.model(ids, vectors[index], timestep, positions=flat).logits.float().log_softmax(dim=-1)
        return log_p


class GapSearch:
    """Fills the gaps of texts.

    Args:
        model: the inverter. settings: how wide and how long the search is.
        judge: ranks texts and has the last word. scout: the surrogate beside an encoder that judges; None leaves it
            out, and the encoder embeds what the denoiser proposes.
    """

    def __init__(self, model: Any, settings: FillSettings, judge: TextJudge, scout: TextJudge | None = None) -> None:
        self.denoiser, self.settings, self.judge, self.scout = WindowDenoiser(model), settings, judge, scout
        self.mask = model.config.mask_token_id

    def run(self, searches: list[TextSearch], on_step: Callable[[], None] | None = None) -> None:
        """Search for all texts side by side; `on_step` is called after each gap."""
        self.start(searches)
        for _ in range(self.settings.num_sweeps):
            before = [search.best.score for search in searches]
            for step in range(max(len(search.order) for search in searches)):
                active = [(one, one.order[step]) for one in searches if step < len(one.order) and not one.is_done]
                if active:
                    self.step(active)
                    if on_step is not None:
                        on_step()
            for search, score in zip(searches, before, strict=True):
                search.is_done |= search.best.score <= score
            if all(search.is_done for search in searches):
                break

    def start(self, searches: list[TextSearch]) -> None:
        """A first filling of all gaps by the denoiser alone, and the order of the gaps, by its certainty."""
        states = [self._masked(search) for search in searches]
        jobs = [(search, state, gap) for search, state in zip(searches, states, strict=True) for gap in search.open]
        top = self._likeliest(jobs)
        for search in searches:
            certainty = {gap: log_p for (one, _, gap), (log_p, _) in zip(jobs, top, strict=True) if one is search}
            search.order = sorted(certainty, key=lambda gap: -certainty[gap])
        for step in range(max(len(search.order) for search in searches)):
            jobs = [
                (s, state, s.order[step]) for s, state in zip(searches, states, strict=True) if step < len(s.order)
            ]
            for (_, state, gap), (log_p, filling) in zip(jobs, self._likeliest(jobs), strict=True):
                state.fillings[gap], state.log_p[gap] = filling, log_p
        texts = [(s, tuple(state.fillings), tuple(state.log_p)) for s, state in zip(searches, states, strict=True)]
        self._judge(texts)
        for search in searches:
            search.rank(self.settings.num_beams)

    def _masked(self, search: TextSearch) -> "State":
        """All gaps masked, each as short as it may be."""
        gaps = search.text.gaps
        search.open = set(range(len(gaps)))
        return State([(self.mask,) * gap.lengths[0] for gap in gaps], [0.0] * len(gaps))

    def _likeliest(self, jobs: list[tuple[TextSearch, "State", int]]) -> list[tuple[float, Filling]]:
        """log p and tokens of the likeliest filling of a gap of each state, its tokens taken one by one."""
        rows, positions, vectors, allowed = [], [], [], []
        for search, state, gap in jobs:
            first = search.text.starts(state.fillings)[gap]
            for offset in range(len(state.fillings[gap])):
                rows.append(search.text.ids(state.fillings))
                positions.append(first + offset)
                vectors.append(search.target)
                allowed.append(search.allowed[gap])
        log_p = self.denoiser.log_p(rows, positions, torch.stack(vectors))
        best, tokens = log_p.masked_fill(~torch.stack(allowed), -torch.inf).max(dim=-1)
        chosen = iter(zip(best.tolist(), tokens.tolist(), strict=True))
        result = []
        for _, state, gap in jobs:
            pairs = [next(chosen) for _ in state.fillings[gap]]
            result.append((sum(value for value, _ in pairs), tuple(token for _, token in pairs)))
        return result

    def step(self, active: list[tuple[TextSearch, int]]) -> None:
        """One gap of each text: fillings proposed for every hypothesis of its beam, judged, and the best kept."""
        jobs = [(search, gap, one) for search, gap in active for one in search.beam]
        for search, gap in active:
            search.open.discard(gap)
        candidates: dict[int, dict[Fillings, Candidate]] = {}
        for (search, gap, parent), proposals in zip(jobs, self._propose(jobs), strict=True):
            behind = SCORE_TO_NATS * (parent.score - search.best.score)
            mine = candidates.setdefault(id(search), {})
            for filling, log_p in proposals:
                fillings = (*parent.fillings[:gap], filling, *parent.fillings[gap + 1 :])
                likelihoods = (*parent.log_p[:gap], log_p, *parent.log_p[gap + 1 :])
                new = Candidate(fillings, likelihoods, log_p + behind, parent)
                if fillings not in search.tried and (fillings not in mine or mine[fillings].priority < new.priority):
                    mine[fillings] = new
        chosen = []
        for search, _ in active:
            ranked = sorted(candidates[id(search)].values(), key=lambda one: -one.priority)
            chosen += [(search, one) for one in ranked[: self.settings.num_proposals]]
        if self.scout is not None:
            chosen = self._promising(chosen)
        self._judge([(search, one.fillings, one.log_p) for search, one in chosen])
        for search, _ in active:
            search.rank(self.settings.num_beams)

    def _propose(self, jobs: list[tuple[TextSearch, int, Hypothesis]]) -> list[list[tuple[Filling, float]]]:
        """Fillings of a gap of each hypothesis with their log p, given e + α(e − ê)."""
        aims = [normalize(s.target + self.settings.overshoot * (s.target - h.vector), dim=-1) for s, _, h in jobs]
        partial: dict[tuple[int, int], list[tuple[Filling, float]]] = {}  # by job and length
        for job, (search, gap, hypothesis) in enumerate(jobs):
            lengths = search.text.gaps[gap].lengths if hypothesis is search.best else (len(hypothesis.fillings[gap]),)
            partial.update({(job, length): [((), 0.0)] for length in lengths})
        literals = [search.text.gaps[gap].literal for search, gap, _ in jobs]
        done: list[list[tuple[Filling, float]]] = [[(one, LITERAL)] if one else [] for one in literals]
        while partial:
            grown = self._grown(jobs, aims, partial)
            partial = {}
            for (job, length), fillings in grown.items():
                if len(fillings[0][0]) == length:
                    done[job] += fillings
                else:
                    partial[job, length] = fillings[:PARTIAL]
        return done

    def _grown(
        self,
        jobs: list[tuple[TextSearch, int, Hypothesis]],
        aims: list[Tensor],
        partial: dict[tuple[int, int], list[tuple[Filling, float]]],
    ) -> dict[tuple[int, int], list[tuple[Filling, float]]]:
        """Partial fillings with one more token, the likeliest first."""
        rows, positions, vectors, allowed = [], [], [], []
        for (job, length), fillings in partial.items():
            search, gap, hypothesis = jobs[job]
            for filling, _ in fillings:
                state = self._opened(search, hypothesis)
                state[gap] = (*filling, *[self.mask] * (length - len(filling)))
                rows.append(search.text.ids(state))
                positions.append(search.text.starts(state)[gap] + len(filling))
                vectors.append(aims[job])
                allowed.append(search.allowed[gap])
        log_p = self.denoiser.log_p(rows, positions, torch.stack(vectors))
        log_p = log_p.masked_fill(~torch.stack(allowed), -torch.inf)
        values, tokens = log_p.topk(min(self.settings.num_proposals, log_p.shape[1]), dim=-1)
        tops = zip(tokens.tolist(), values.tolist(), strict=True)  # of each row, in the order of `partial`
        grown = {}
        for key, fillings in partial.items():
            longer = [
                ((*filling, token), before + value)
                for (filling, before), top in zip(fillings, tops, strict=False)
                for token, value in zip(*top, strict=True)
                if value > -torch.inf
            ]
            grown[key] = sorted(longer, key=lambda one: -one[1])[: self.settings.num_proposals]
        return grown

    def _opened(self, search: TextSearch, hypothesis: Hypothesis) -> list[Filling]:
        """A hypothesis' fillings, [MASK] in the gaps that are open still."""
        fillings = enumerate(hypothesis.fillings)
        return [(self.mask,) * len(filling) if gap in search.open else filling for gap, filling in fillings]

    def _promising(self, candidates: list[tuple[TextSearch, Candidate]]) -> list[tuple[TextSearch, Candidate]]:
        """Of each text's candidates the `num_checked` that the scout ranks first.

        The scout's error on the parent, whose vector is known, is subtracted.
        """
        assert self.scout is not None
        wanted = {}
        for search, one in candidates:
            for fillings in (one.fillings, one.parent.fillings):
                if fillings not in search.scouted:
                    wanted[id(search), fillings] = (search, fillings)
        new = list(wanted.values())
        if new:
            vectors = self.scout.vectors([(search.text, fillings) for search, fillings in new])
            for (search, fillings), vector in zip(new, vectors, strict=True):
                search.scouted[fillings] = vector
        scored: dict[int, list[tuple[float, TextSearch, Candidate]]] = {}
        for search, one in candidates:
            error = search.scouted[one.parent.fillings] - one.parent.vector
            vector = normalize(search.scouted[one.fillings] - error, dim=-1)
            scored.setdefault(id(search), []).append((float(vector @ search.target.cpu()), search, one))
        best = (sorted(found, key=lambda one: -one[0])[: self.settings.num_checked] for found in scored.values())
        return [(search, one) for found in best for _, search, one in found]

    def _judge(self, texts: list[tuple[TextSearch, Fillings, tuple[float, ...]]]) -> None:
        """Embed whole fillings, none of which was tried."""
        if not texts:
            return
        vectors = self.judge.vectors([(search.text, fillings) for search, fillings, _ in texts])
        targets = torch.stack([search.target for search, _, _ in texts]).cpu()
        cosines = (vectors * targets).sum(dim=-1).tolist()
        for (search, fillings, log_p), vector, cosine in zip(texts, vectors, cosines, strict=True):
            score = cosine + self.judge.likelihood_weight * sum(log_p)
            search.tried[fillings] = Hypothesis(fillings, log_p, vector, cosine, score)


@dataclass
class State:
    """Fillings while they are made: the tokens of each gap, [MASK] where it is open, and log p."""

    fillings: list[Filling]
    log_p: list[float]
