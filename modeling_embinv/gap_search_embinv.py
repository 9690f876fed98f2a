"""The gap search: which words a redacted text hides, given its vector.

The denoiser proposes fillings of one gap, given e and what stands around it. A judge embeds the whole texts, and the
cosine of their vectors with e ranks them. A beam of whole fillings goes over the gaps, the most certain one first, and
over all of them again until no text improves. Each time, candidates that need no denoiser are judged, too: a token
less, and fillings of several gaps at once. Where the encoder judges and the model has a surrogate, the surrogate is
its scout: it searches first, and then chooses the fillings that the encoder embeds.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .gap_states_embinv import UNRELATED
from .gap_states_embinv import Candidate
from .gap_states_embinv import Fillings
from .gap_states_embinv import Hypothesis
from .gap_states_embinv import Job
from .gap_states_embinv import Proposal
from .gap_states_embinv import RedactedText
from .gap_states_embinv import TextSearch
from .gap_states_embinv import spliced
from .settings_embinv import FillSettings


# times as many proposals are tried, and checked, once a sweep has not found the text, where the judge can tell
WIDER = 4
# a text whose best cosine is below this after one sweep gets no second one. Texts had 0.95 and more with their own
# vectors, 0.62 with these cut to one bit a dimension; with others at most 0.59 (one gap), and most of them below 0.7
HOPELESS = 0.6
# a gap's first step tries a half of the proposals, as the words around it are first guesses; once the text is found, a
# quarter of them show how far the runners-up fall behind
FIRST_PART, FOUND_PART = 2, 4
# candidates that need no denoiser: how many are judged at a time, and how often while they improve a text
NUM_CLIMBED, NUM_CLIMBS = 48, 5

Climb = tuple[Callable[[TextSearch], bool], Callable[[TextSearch], list[Candidate]]]


@dataclass
class TextJudge:
    """What embeds whole texts.

    Attributes:
        embed: texts and the fillings of each → unit vectors (N, D). kind: "encoder" or "surrogate".
        num_calls: texts embedded so far.
    """

    embed: Callable[[list[tuple[RedactedText, Fillings]]], Tensor]
    kind: str
    num_calls: int = 0

    def vectors(self, texts: list[tuple[RedactedText, Fillings]]) -> Tensor:
        """(N, D) float32 on the CPU."""
        self.num_calls += len(texts)
        return self.embed(texts).float().cpu()


class GapSearch:
    """Fills the gaps of texts.

    Args:
        proposer: `propose(jobs)` gives fillings of gaps with their log p, and `denoiser.log_p` how likely each token
            is. See `Proposer`.
        settings: how wide and how long the search is.
        judge: ranks texts and has the last word. scout: the surrogate beside an encoder that judges, see
            `TextSearch.rehearsal` and `has_scout`; None leaves it out, and the encoder embeds what the denoiser
            proposes.
        are_canonical: of texts, () standing for a gap that is not looked at, whether their tokens are those that the
            tokenizer gives them; others can never be right.
        climbs: candidates that need no denoiser: which searches they are for, and what gives them.
        first_climbs: the same before the first sweep, of whole searches: a text that they bring near needs no sweep.
    """

    def __init__(
        self,
        proposer: Any,
        settings: FillSettings,
        judge: TextJudge,
        scout: TextJudge | None,
        are_canonical: Callable[[list[tuple[RedactedText, Fillings]]], list[bool]],
        climbs: Sequence[Climb] = (),
        first_climbs: Sequence[Climb] = (),
    ) -> None:
        self.settings, self.judge, self.scout, self.are_canonical = settings, judge, scout, are_canonical
        self.proposer, self.mask, self.climbs, self.first_climbs = proposer, proposer.mask, climbs, first_climbs

    def run(self, searches: list[TextSearch], on_step: Callable[[], None] | None = None) -> None:
        """Search for all texts side by side; `on_step` is called after each gap."""
        self.start([search for search in searches if search.rehearsal is None])
        self._rehearse(searches, on_step)
        for climb in self.first_climbs:
            self._climb_first([search for search in searches if search.rehearsal is None and climb[0](search)], climb)
        for sweep in range(self.settings.num_sweeps):
            before = [search.standing for search in searches]
            for step in range(max(len(search.order) for search in searches)):
                active = [(one, one.order[step]) for one in searches if step < len(one.order) and not one.is_done]
                if active:
                    self.step(active)
                    if on_step is not None:
                        on_step()
            for climb in self.climbs:
                self._climb(searches, climb)
            for search, standing in zip(searches, before, strict=True):
                # if the vector belongs to another text, neither more proposals nor more sweeps can help
                is_unrelated = search.best.cosine < UNRELATED
                search.is_done |= search.best.cosine < (UNRELATED if sweep else HOPELESS)
                if search.standing <= standing:
                    search.is_done |= search.stop_cosine is None or search.width > 1 or is_unrelated
                    search.width = WIDER
            if all(search.is_done for search in searches):
                break

    def _climb_first(self, searches: list[TextSearch], climb: Climb) -> None:
        """Before the first sweep, which a text that comes near does not need."""
        before = [search.best for search in searches]
        self._climb(searches, climb)
        for search, old in zip(searches, before, strict=True):
            search.is_done |= search.best is not old and search.best.cosine >= UNRELATED

    def _climb(self, searches: list[TextSearch], climb: Climb) -> None:
        """Judge candidates that need no denoiser, and new ones while the best text improves."""
        may_climb, proposed = climb
        for _ in range(NUM_CLIMBS):
            searches = [search for search in searches if may_climb(search)]
            before, new = [search.best for search in searches], []
            for search in searches:
                candidates = {one.fillings: one for one in proposed(search)}
                new += [(search, one) for one in self._first(search, candidates, NUM_CLIMBED)]
            self._judge([(search, one.fillings, one.log_p) for search, one in new])
            for search in searches:
                search.rank(self.settings.num_beams)
            searches = [search for search, old in zip(searches, before, strict=True) if search.best is not old]

    def _rehearse(self, searches: list[TextSearch], on_step: Callable[[], None] | None) -> None:
        """Search by the scout alone, and let the judge check what it finds.

        First the best text and, for each gap, a runner-up. If none is exact, the `num_checked` best ones.
        """
        pairs = [(search, search.rehearsal) for search in searches if search.rehearsal is not None]
        if not pairs:
            return
        assert self.scout is not None
        alone = GapSearch(
            self.proposer, self.settings, self.scout, None, self.are_canonical, self.climbs, self.first_climbs
        )
        alone.run([rehearsal for _, rehearsal in pairs], on_step)
        for search, rehearsal in pairs:
            search.order, search.misspelt = rehearsal.order, rehearsal.misspelt
            search.scouted = {fillings: one.vector for fillings, one in rehearsal.tried.items()}
        self._check([(search, [one.best, *one.runners_up()]) for search, one in pairs])
        self._check([(search, one.ranked[: self.settings.num_checked]) for search, one in pairs if not search.is_done])
        for search, _ in pairs:
            search.is_done |= search.best.cosine < UNRELATED

    def _check(self, found: list[tuple[TextSearch, list[Hypothesis]]]) -> None:
        """Embed hypotheses of the scout that were not tried, and keep the best."""
        new = []
        for search, hypotheses in found:
            fresh = {one.fillings: one.log_p for one in hypotheses if one.fillings not in search.tried}
            new += [(search, fillings, log_p) for fillings, log_p in fresh.items()]
        self._judge(new)  # all texts in one batch
        for search, _ in found:
            search.rank(self.settings.num_beams)

    def start(self, searches: list[TextSearch]) -> None:
        """A first filling of all gaps by the denoiser alone, and the order of the gaps, by its certainty.

        Each gap is judged with its second likeliest filling, too: a vector that says nothing of a gap shows at once.
        Where two tokens may be the same text, as 500 and ##500 behind a €, it is judged with the third, too.
        """
        if not searches:
            return
        states = [self._masked(search) for search in searches]
        pairs = list(zip(searches, states, strict=True))
        jobs = [(search, state, gap) for search, state in pairs for gap in search.open]
        certainty = {(id(one), gap): best[1] for (one, _, gap), (best, *_) in zip(jobs, self._top(jobs), strict=True)}
        for search in searches:
            search.order = sorted(search.open, key=lambda gap: -certainty[id(search), gap])
        seconds: list[tuple[TextSearch, list[Proposal], int, Proposal]] = []
        for step in range(max(len(search.order) for search in searches)):
            jobs = [(one, state, one.order[step]) for one, state in pairs if step < len(one.order)]
            for (search, state, gap), (best, *others) in zip(jobs, self._top(jobs), strict=True):
                state[gap] = best
                seconds += [(search, state, gap, one) for one in others]
        whole = [(search, tuple(state)) for search, state in pairs]
        whole += [(search, spliced(tuple(state), gap, gap + 1, second)) for search, state, gap, second in seconds]
        self._spell(whole)
        texts = {}
        for search, proposals in whole:
            fillings, log_p = zip(*proposals, strict=True)
            texts[id(search), fillings] = search, fillings, log_p
        self._judge(list(texts.values()))
        for search in searches:
            search.rank(self.settings.num_beams)

    def _spell(self, guesses: Sequence[tuple[TextSearch, Sequence[Proposal]]]) -> None:
        """Note which guesses are misspelt, each by itself: one that is must not rule out its neighbours."""
        found = {}
        for search, proposals in guesses:
            for gap, (filling, _) in enumerate(proposals):
                found[id(search), gap, filling] = search
        alone = []
        for (_, gap, filling), search in found.items():
            alone.append((search.text, spliced(((),) * len(search.text.gaps), gap, gap + 1, filling)))
        for ((_, gap, filling), search), keep in zip(found.items(), self.are_canonical(alone), strict=True):
            if not keep:
                search.misspelt.add((gap, filling))

    def _masked(self, search: TextSearch) -> list[Proposal]:
        """All gaps masked, each as short as it may be."""
        gaps = search.text.gaps
        search.open = set(range(len(gaps)))
        return [((self.mask,) * gap.shortest, 0.0) for gap in gaps]

    def _top(self, jobs: list[tuple[TextSearch, list[Proposal], int]]) -> list[list[Proposal]]:
        """The two likeliest fillings of a gap of each state, their tokens taken one by one; three where it is apart.

        Of a list a shortest entry, so that the text fits with the longest one in another gap, and any other.
        """
        rows, positions, vectors, prior = [], [], [], []
        for search, state, gap in jobs:
            fillings = [filling for filling, _ in state]
            first = search.text.starts(fillings)[gap]
            for offset in range(len(fillings[gap])):
                rows.append(search.text.ids(fillings))
                positions.append(first + offset)
                vectors.append(search.target)
                prior.append(search.log_prior[gap])
        log_p = self.proposer.denoiser.log_p(rows, positions, torch.stack(vectors), prior)
        values, tokens = log_p.topk(3, dim=-1)
        chosen = iter(zip(tokens.tolist(), values.tolist(), strict=True))  # three tokens a position, with their log p
        result = []
        for search, state, gap in jobs:
            columns = [next(chosen) for _ in state[gap][0]]
            ranks = range(3 if search.text.gaps[gap].is_apart else 2)
            found = [tuple(token[rank] for token, _ in columns) for rank in ranks]
            if listed := list(search.text.gaps[gap].choices or ()):
                best = min(listed, key=len)
                found = [best, next((one for one in reversed(listed) if one != best), best)]
            totals = (sum(value[rank] for _, value in columns) for rank in ranks)
            result.append(list(zip(found, totals, strict=False)))
        return result

    def step(self, active: list[tuple[TextSearch, int]]) -> None:
        """One gap of each text: fillings proposed for every hypothesis of its beam, judged, and the best kept."""
        jobs = [job for search, gap in active for job in self._jobs(search, gap)]
        candidates: dict[int, dict[Fillings, Candidate]] = {id(search): {} for search, _ in active}
        counts = {id(job.search): job.count for job in jobs}
        for search, gap in active:
            search.open.discard(gap)
        for job, proposals in zip(jobs, self.proposer.propose(jobs), strict=True):
            mine = candidates[id(job.search)]
            for new in [job.candidate(filling, log_p) for filling, log_p in proposals] + job.moves():
                is_better = new.fillings not in mine or mine[new.fillings].priority < new.priority
                if is_better and job.search.is_new(new.fillings):
                    mine[new.fillings] = new
        chosen = []
        for search, _ in active:
            first = self._first(search, candidates[id(search)], counts[id(search)])
            chosen += [(search, one) for one in first]
        scouted = [one for one in chosen if one[0].has_scout]
        if scouted:
            chosen = [one for one in chosen if not one[0].has_scout] + self._promising(scouted)
        self._judge([(search, one.fillings, one.log_p) for search, one in chosen])
        for search, _ in active:
            search.rank(self.settings.num_beams)
            # a gap that no step has filled yet may have a better word
            search.is_done |= not search.open and search.is_found

    def _jobs(self, search: TextSearch, gap: int) -> list[Job]:
        """What a step does with a gap: for each hypothesis of the beam, and how widely."""
        count, is_open = self.settings.num_proposals, gap in search.open
        if search.is_found:
            return [Job(search, gap, search.best, False, max(count // FOUND_PART, 1))]
        if is_open:  # of a list all entries are judged once
            count = max(count // FIRST_PART, len(search.text.gaps[gap].choices or ()), 1)
        return [Job(search, gap, one, is_open, count * search.width) for one in search.beam]

    def _first(self, search: TextSearch, candidates: dict[Fillings, Candidate], count: int) -> list[Candidate]:
        """The first candidates by priority, without those whose tokens the tokenizer would not give their text.

        What stands in a gap that no step has filled yet is a guess, which does not count.
        """
        ranked = sorted(candidates.values(), key=lambda one: -one.priority)
        first: list[Candidate] = []
        for start in range(0, len(ranked), count):
            part = ranked[start : start + count]
            texts = [(search.text, search.without_guesses(one.fillings)) for one in part]
            first += [one for one, keep in zip(part, self.are_canonical(texts), strict=True) if keep]
            if len(first) >= count:
                break
        return first[:count]

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
        best = (sorted(found, key=lambda one: -one[0]) for found in scored.values())
        most = self.settings.num_checked
        return [(search, one) for found in best for _, search, one in found[: most * found[0][1].width]]

    def _judge(self, texts: list[tuple[TextSearch, Fillings, tuple[float, ...]]]) -> None:
        """Embed whole fillings, none of which was tried."""
        if not texts:
            return
        vectors = self.judge.vectors([(search.text, fillings) for search, fillings, _ in texts])
        targets = torch.stack([search.target for search, _, _ in texts]).cpu()
        cosines = (vectors.double() * targets).sum(dim=-1).tolist()
        for (search, fillings, log_p), vector, cosine in zip(texts, vectors, cosines, strict=True):
            score = cosine + search.likelihood_weight * (1 - cosine) * sum(log_p)
            search.tried[fillings] = Hypothesis(fillings, log_p, vector, cosine, score)
