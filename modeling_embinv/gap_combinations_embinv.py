"""Candidates that need no denoiser: a token less, and fillings of several gaps at once.

A search that fills one gap after another ends where each such change alone makes the text worse. What it has tried
tells more: a filling changes the vector of the text by about the same, whatever stands in the other gaps. A regression
finds these changes. Added up, they predict the vectors of texts that nobody has embedded, and the nearest to e are
judged.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .gap_states_embinv import EXACT
from .gap_states_embinv import UNRELATED
from .gap_states_embinv import Candidate
from .gap_states_embinv import Filling
from .gap_states_embinv import Job
from .gap_states_embinv import TextSearch

# hypotheses that the regression sees, the best ones; one whose cosine is lower by c has the weight exp(−20 · c)
FITTED, NEARNESS = 1024, 20.0
# ridge, so that a filling that was tried once does not explain all of its text's vector
RIDGE = 0.3
# gaps that change together, at most, and combinations of two or more gaps that are kept: each can come up in as many
# orders as it has gaps
MOST_GAPS, KEPT = 3, 256


@dataclass(frozen=True)
class Changes:
    """What K fillings of single gaps would change in the best hypothesis.

    Attributes:
        fillings: gap and tokens of each. gaps: (K,), the same gaps.
        vectors: (K, D), change of the text's vector. log_p: (K,), log p of each.
        is_present: (K,) bool, whether the best hypothesis has the filling.
    """

    fillings: list[tuple[int, Filling]]
    gaps: Tensor
    vectors: Tensor
    log_p: Tensor
    is_present: Tensor


@dataclass(frozen=True)
class Combination:
    """Changes of several gaps.

    Attributes:
        chosen: rows of `Changes`. vector: (D,), the predicted one of the text, not of length 1.
        log_p: the change of the sum of log p.
    """

    chosen: tuple[int, ...]
    vector: Tensor
    log_p: float


def fitted_changes(search: TextSearch) -> Changes:
    """Changes by each filling that was tried: a weighted ridge regression on the vectors of what was tried."""
    tried, best = search.ranked[:FITTED], search.best
    rows: dict[tuple[int, Filling], int] = {}
    log_p: list[float] = []
    features = []
    for one in tried:
        for key, value in zip(enumerate(one.fillings), one.log_p, strict=True):
            if key not in rows:
                rows[key] = len(rows)
                log_p.append(value)
        features.append([rows[key] for key in enumerate(one.fillings)])
    x = torch.zeros(len(tried), len(rows)).scatter_(1, torch.tensor(features), 1.0)
    present = x[0].bool()  # the best one is the first
    x = x - x[0]
    y = torch.stack([one.vector for one in tried]) - best.vector
    weights = (NEARNESS * (torch.tensor([one.cosine for one in tried]) - best.cosine)).exp()[:, None]
    effects = torch.linalg.solve(x.T @ (weights * x) + RIDGE * torch.eye(len(rows)), x.T @ (weights * y))
    gaps = torch.tensor([gap for gap, _ in rows])
    return Changes(list(rows), gaps, effects - effects[features[0]][gaps], torch.tensor(log_p), present)


def shortened(search: TextSearch) -> list[Candidate]:
    """Untried texts with a token less: one too many costs so little that the surrogate overlooks it."""
    jobs = [Job(search, gap, search.best, False, 1) for gap in range(len(search.text.gaps))]
    candidates = [job.candidate(*proposal) for job in jobs for proposal in job.without_denoiser()]
    return [one for one in candidates if search.is_new(one.fillings)]


def combined(search: TextSearch) -> list[Candidate]:
    """Untried texts that differ from the best one in up to MOST_GAPS gaps; their priority is the score predicted."""
    changes, best = fitted_changes(search), search.best
    states, candidates = [Combination((), best.vector, 0.0)], []
    for _ in range(min(MOST_GAPS, len(best.fillings))):
        extended = _extended(search, changes, states)
        if not extended:  # too few gaps have another filling
            break
        states = [combination for combination, _ in extended]
        candidates += [_candidate(search, changes, *pair) for pair in extended]
    return [one for one in candidates if search.is_new(one.fillings)]


def _extended(search: TextSearch, changes: Changes, states: list[Combination]) -> list[tuple[Combination, float]]:
    """The best combinations with one gap more, and their scores."""
    vectors = torch.stack([one.vector for one in states])
    own_log_p = torch.tensor(search.best.log_p)
    log_p = torch.tensor([one.log_p for one in states])[:, None] + changes.log_p - own_log_p[changes.gaps]
    squares = (vectors**2).sum(1)[:, None] + (changes.vectors**2).sum(1) + 2 * vectors @ changes.vectors.T
    target = search.target.float().cpu()
    cosines = ((vectors @ target)[:, None] + changes.vectors @ target) / squares.clamp_min(1e-6).sqrt()
    scores = cosines + search.likelihood_weight * (1 - cosines) * (own_log_p.sum() + log_p)
    scores[:, changes.is_present] = -torch.inf
    for row, state in enumerate(states):
        scores[row, torch.isin(changes.gaps, changes.gaps[list(state.chosen)])] = -torch.inf
    num_gaps = len(states[0].chosen) + 1
    most = scores.numel() if num_gaps == 1 else min(KEPT * num_gaps, scores.numel())  # of single gaps all
    top = scores.flatten().topk(most)
    found: dict[tuple[int, ...], tuple[Combination, float]] = {}
    for flat, value in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        row, new = divmod(flat, len(changes.fillings))
        chosen = tuple(sorted((*states[row].chosen, new)))
        if value > -torch.inf and chosen not in found:
            vector = states[row].vector + changes.vectors[new]
            found[chosen] = Combination(chosen, vector, float(log_p[row, new])), value
    return list(found.values())


def _candidate(search: TextSearch, changes: Changes, combination: Combination, score: float) -> Candidate:
    fillings, log_p = list(search.best.fillings), list(search.best.log_p)
    for row in combination.chosen:
        gap, filling = changes.fillings[row]
        fillings[gap], log_p[gap] = filling, float(changes.log_p[row])
    return Candidate(tuple(fillings), tuple(log_p), score, search.best)


def may_combine(search: TextSearch) -> bool:
    """Whether several gaps may change at once: what the judge has seen says how, and the text is not found."""
    is_open = not (search.is_done or search.is_found) and search.best.cosine >= UNRELATED
    return is_open and not search.has_scout and len(search.text.gaps) > 1


# which searches have such candidates, and what gives them
CLIMBS = ((lambda search: search.best.cosine < EXACT, shortened), (may_combine, combined))
