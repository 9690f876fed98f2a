"""Closing the loop: embed what was written, and keep what maps back to the vector.

A search over texts in which the denoiser proposes and an encoder, the feedback, judges. It starts from sampled
candidates. Each round edits the best hypotheses of every vector in parallel: doubtful words are masked again, words
are inserted and deleted, spans change places; the denoiser fills in what is open, given e. The surrogate, where the
model has one, is the scout of an encoder: it judges the first rounds alone, and later picks those proposals, and edits
of the best of them, that deserve a call of the encoder, which embeds them in one batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import repeat

import torch
from torch import Tensor

from .diffusion_embinv import shortest_canvases
from .diffusion_embinv import text_positions
from .edits_embinv import NUM_DRAWS
from .edits_embinv import random_edits
from .generation_config_embinv import TEXTS

# a vector leaves the search at this cosine, or after so many rounds without a better text
ARRIVED, PATIENCE = 0.999, 5
# λ by default, tuned on validation texts: the encoder's cosine needs no help, the surrogate is deceived without it
LIKELIHOOD_WEIGHT, SURROGATE_LIKELIHOOD_WEIGHT = 0.0, 0.006
# texts that the network is given at a time: what a vector tells it takes tens of kilobytes a row
ROWS = 4096


@dataclass
class Targets:
    """The vectors e (B, D) that texts are searched for, each with a generator of its own.

    So no text depends on the others of its batch, and equal vectors get different noise.
    """

    vectors: Tensor
    generators: list[torch.Generator]

    @classmethod
    def of(cls, vectors: Tensor, generator: torch.Generator | None) -> "Targets":
        """Generators whose seeds are drawn from `generator`, one number a row."""
        device = "cpu" if generator is None else generator.device
        seeds = [int(torch.randint(2**31, (1,), generator=generator, device=device)) for _ in vectors]
        return cls(vectors, [torch.Generator().manual_seed(seed) for seed in seeds])

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, index: Tensor) -> "Targets":
        """Those of the rows `index`."""
        return Targets(self.vectors[index], [self.generators[row] for row in index.tolist()])

    def copies(self, count: int, vectors: Tensor | None = None) -> "Targets":
        """Each `count` times, or `vectors` (B · count, D) in their place."""
        vectors = self.vectors.repeat_interleave(count, dim=0) if vectors is None else vectors
        return Targets(vectors, [generator for one in self.generators for generator in repeat(one, count)])

    def draws(self, count: int, width: int) -> Tensor:
        """(B · count, width) uniform in [0, 1), `count` rows from each generator."""
        rows = [torch.rand(count, width, generator=generator) for generator in self.generators]
        return torch.cat(rows).to(self.vectors.device)


@dataclass
class Hypotheses:
    """K texts for each of B vectors, the best first.

    ids: (B, K, L). vectors: (B, K, D), 0 without feedback. cosine: (B, K) of them with e. log_p: (B, K, L) of each
    token of the text given e and about half of the others, 0 behind its end. score: (B, K) cosine + λ · mean log p.
    """

    ids: Tensor
    vectors: Tensor
    cosine: Tensor
    log_p: Tensor
    score: Tensor

    @classmethod
    def of(cls, ids: Tensor, vectors: Tensor, cosine: Tensor) -> "Hypotheses":
        """Texts whose likelihood is yet to be found."""
        return cls(ids, vectors, cosine, torch.zeros(ids.shape, device=ids.device), cosine)

    def rows(self, index: Tensor) -> "Hypotheses":
        """Those of the vectors `index`."""
        return Hypotheses(*(getattr(self, name)[index] for name in NAMES))

    def put(self, index: Tensor, other: "Hypotheses"):
        """Replace those of the vectors `index`."""
        for name in NAMES:
            getattr(self, name)[index] = getattr(other, name)

    def best(self, count: int) -> "Hypotheses":
        """The `count` best different ones; where there are fewer, the last ones repeat."""
        order = self.score.masked_fill(repeated(self.ids), -torch.inf).argsort(dim=1, descending=True, stable=True)
        place = torch.arange(count, device=order.device).clamp_max(order.shape[1] - 1)
        return Hypotheses(*(_pick(getattr(self, name), order[:, place]) for name in NAMES))

    def worst(self) -> Tensor:
        """(B,) the lowest score, −∞ where a place is still held by a copy."""
        return self.score.masked_fill(repeated(self.ids), -torch.inf).amin(dim=1)

    def join(self, other: "Hypotheses") -> "Hypotheses":
        """Both, side by side."""
        return Hypotheses(*(torch.cat([getattr(self, name), getattr(other, name)], dim=1) for name in NAMES))


NAMES = tuple(field.name for field in fields(Hypotheses))


def _pick(values: Tensor, order: Tensor) -> Tensor:
    """values (B, K, …) at order (B, k) → (B, k, …)."""
    return values[torch.arange(len(values), device=values.device)[:, None], order]


def _copies(values: Tensor, count: int) -> Tensor:
    """(A, K, …) → (A · K · count, …): each of the K `count` times."""
    return values.repeat_interleave(count, dim=1).flatten(0, 1)


def repeated(ids: Tensor) -> Tensor:
    """(B, K) bool: rows of ids (B, K, L) that stand further left, too."""
    if ids.shape[-1] > 1:  # a number for each text
        _, number = ids.flatten(0, 1).unique(dim=0, return_inverse=True)
        ids = number.view(*ids.shape[:2], 1)
    ordered, order = ids[..., 0].sort(dim=1, stable=True)  # of equal ones, the leftmost comes first
    again = torch.nn.functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    return torch.zeros_like(again).scatter(1, order, again)


@dataclass
class Judge:
    """What embeds the texts of a search.

    embed: ids (N, L) → vectors (N, D). likelihood_weight: λ of the score, which keeps the search from texts that are
    none and deceive a surrogate. num_calls: texts embedded so far.
    """

    embed: Callable[[Tensor], Tensor]
    likelihood_weight: float
    num_calls: int = 0

    def vectors(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(A, K, D) of texts (A, K, L), and (A, K) bool, which of them stand further left, too."""
        unique, place = ids.flatten(0, 1).unique(dim=0, return_inverse=True)  # edits often meet
        self.num_calls += len(unique)
        place = place.view(ids.shape[:2])
        return self.embed(unique).to(ids.device, torch.float32)[place], repeated(place[..., None])

    def cosine(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """(B,) cosine of the vectors of texts (B, L) with e (B, D)."""
        if not len(ids):
            return embeddings.new_zeros(0)
        vectors, _ = self.vectors(ids[:, None])
        return torch.nn.functional.cosine_similarity(vectors[:, 0], embeddings, dim=-1)


class ClosedLoop:
    """A search for the texts of vectors.

    Args:
        generate: (targets, settings, draft_ids, barred_ids), the last two or None → ids (R, L), a text and ends.
        feedback: has the last word, or None: then the denoiser's likelihood is the only judge.
        scout: the surrogate, in the service of feedback; None leaves it out.
        overshoot: α of e + α(e − ê), which the edits of a hypothesis with vector ê are filled in for: what it lacks
            counts for more, its excess for less.
        num_beams: hypotheses that survive a round.
        num_proposals: new texts from each of them.
        num_checked: how many of these the feedback embeds, if there is a scout to pick them.
        num_hops: of these, the scout's best are edited again, so that what it picks lies up to so many edits away.
    """

    def __init__(
        self,
        model,
        generate: Callable[..., Tensor],
        feedback: Judge | None,
        scout: Judge | None,
        overshoot: float,
        num_beams: int,
        num_proposals: int,
        num_checked: int,
        num_hops: int,
        temperature: float,
    ):
        self.model, self.generate = model, generate
        self.feedback, self.scout = feedback, scout
        self.overshoot = overshoot
        self.num_beams, self.num_proposals = num_beams, num_proposals
        self.num_checked, self.num_hops = num_checked, num_hops
        self.temperature = temperature
        self.end, self.mask = model.config.eos_token_id, model.config.mask_token_id
        self.num_forward_passes = 0

    def run(
        self, targets: Targets, num_candidates: int, num_rounds: int, num_scouted: int = 0, num_searches: int = 1
    ) -> Hypotheses:
        """The best text of each vector, (B, 1, …); those that no text has reached are searched for again."""
        texts = max(num_candidates, self.num_beams * self.num_proposals * self.num_hops)  # of each vector
        parts = torch.arange(len(targets)).split(max(1, TEXTS // texts))
        settings = num_candidates, num_rounds, num_scouted, num_searches
        found = [self.searches(targets.rows(part), *settings) for part in parts]
        return Hypotheses(*(torch.cat([getattr(part, name) for part in found]) for name in NAMES))

    def searches(
        self, targets: Targets, num_candidates: int, num_rounds: int, num_scouted: int, num_searches: int
    ) -> Hypotheses:
        """The best text of each target of several searches, (B, 1, …)."""
        best = self.search(targets, num_candidates, num_rounds, num_scouted)
        for _ in range(num_searches - 1):
            missed = (best.cosine[:, 0] < ARRIVED).nonzero().squeeze(1)
            if not len(missed):
                break
            again = self.search(targets.rows(missed), num_candidates, num_rounds, num_scouted)
            best.put(missed, best.rows(missed).join(again).best(1))
        return best

    def search(self, targets: Targets, num_candidates: int, num_rounds: int, num_scouted: int) -> Hypotheses:
        """The best text of each target, (B, 1, …); a scout judges the first `num_scouted` rounds."""
        texts = self.candidates(targets, num_candidates)
        if self.scout is not None and num_scouted:
            texts = self.rounds(targets, texts, self.scout, num_scouted).ids
            num_rounds -= num_scouted
        return self.rounds(targets, texts, self.feedback, num_rounds).best(1)

    def rounds(self, targets: Targets, texts: Tensor, judge: Judge | None, count: int) -> Hypotheses:
        """The beam (B, num_beams, …) after `count` rounds that start from texts (B, K, L)."""
        state = self.weigh(judge, texts, targets.vectors).best(self.num_beams)
        stale = torch.zeros(len(targets), dtype=torch.long, device=texts.device)
        for _ in range(count):
            active = ((state.cosine[:, 0] < ARRIVED) & (stale < PATIENCE)).nonzero().squeeze(1)
            if not len(active):
                break
            before, rows = state.rows(active), targets.rows(active)
            far_sighted = self.scout is not None and judge is not self.scout
            ids = self.promising(before, rows) if far_sighted else self.propose(before, rows)
            found = self.weigh(judge, ids, rows.vectors, before.worst())
            after = before.join(found).best(self.num_beams)
            stale[active] = torch.where(after.score[:, 0] > before.score[:, 0] + 1e-6, 0, stale[active] + 1)
            state.put(active, after)
        return state

    def candidates(self, targets: Targets, count: int) -> Tensor:
        """(B, count, L): the text of temperature 0, and samples."""
        greedy = self.generate(targets, {"temperature": 0.0})
        if count == 1:
            return greedy[:, None]
        sampled = self.generate(targets.copies(count - 1), {"temperature": self.temperature})
        return torch.cat([greedy[:, None], sampled.view(len(greedy), count - 1, -1)], dim=1)

    def propose(self, state: Hypotheses, targets: Targets) -> Tensor:
        """(A, num_beams · n, L): every hypothesis edited, the edits filled in given e + α(e − ê)."""
        count, target = self.num_proposals, targets.vectors[:, None]
        aim = torch.nn.functional.normalize(target + self.overshoot * (target - state.vectors), dim=-1)
        ids, log_p = _copies(state.ids, count), _copies(state.log_p, count)
        edits = state.ids.shape[1] * count  # of each target
        draws = targets.draws(edits, NUM_DRAWS + ids.shape[1])
        drafts, barred = random_edits(ids, log_p, self.mask, self.end, draws)
        settings = {"temperature": self.temperature, "num_steps": 1, "strategy": "confidence"}
        filled = self.generate(targets.copies(edits, _copies(aim, count)), settings, drafts, barred)
        return filled.view(len(targets), -1, ids.shape[1])

    def promising(self, state: Hypotheses, targets: Targets) -> Tensor:
        """(A, num_beams · num_checked, L), what the scout ranks first of edits, and of edits of the best of them."""
        known = replace(state, score=torch.full_like(state.score, -torch.inf))  # neither they nor copies are picked
        found = known.join(self.guessed(state, targets))
        for _ in range(self.num_hops - 1):
            parents = self._with_likelihood(found.best(self.num_beams), targets.vectors, weight=0.0)
            found = found.join(self.guessed(parents, targets))
        return found.best(self.num_beams * self.num_checked).ids

    def guessed(self, state: Hypotheses, targets: Targets) -> Hypotheses:
        """Edits of texts with vectors by the scout.

        What the scout gets wrong of a text whose vector is known, or guessed, is put right in its edits.
        """
        ids = self.propose(state, targets)
        vectors, _ = self.scout.vectors(torch.cat([state.ids, ids], dim=1))
        of_state, of_edits = vectors.split([state.ids.shape[1], ids.shape[1]], dim=1)
        error = (of_state - state.vectors).repeat_interleave(self.num_proposals, dim=1)
        vectors = torch.nn.functional.normalize(of_edits - error, dim=-1)
        return Hypotheses.of(ids, vectors, (vectors * targets.vectors[:, None]).sum(dim=-1))

    def weigh(self, judge: Judge | None, ids: Tensor, embeddings: Tensor, floor: Tensor | None = None) -> Hypotheses:
        """Texts (A, K, L) with their scores; likelihoods of the nearest ones alone, the rest is dropped.

        floor: (A,), a text whose cosine is no higher cannot reach the beam, and gets a score of −∞.
        """
        if judge is None:
            nothing = torch.zeros(*ids.shape[:2], embeddings.shape[1], device=ids.device)
            return self._with_likelihood(Hypotheses.of(ids, nothing, nothing[..., 0]), embeddings, 1.0)
        vectors, copies = judge.vectors(ids)
        cosine = torch.nn.functional.cosine_similarity(vectors, embeddings[:, None], dim=-1)  # (A, K)
        # where cosine alone ranks, no more of them can reach the beam
        few = self.num_beams * (2 if judge.likelihood_weight else 1)
        kept = cosine.masked_fill(copies, -torch.inf).topk(min(few, ids.shape[1]), dim=1).indices
        found = Hypotheses.of(_pick(ids, kept), _pick(vectors, kept), _pick(cosine, kept))
        return self._with_likelihood(found, embeddings, judge.likelihood_weight, floor)

    def _with_likelihood(
        self, found: Hypotheses, embeddings: Tensor, weight: float, floor: Tensor | None = None
    ) -> Hypotheses:
        """Scores and likelihoods filled in, where log p ≤ 0 leaves a text a chance."""
        hopeful = torch.ones_like(found.score, dtype=torch.bool) if floor is None else found.cosine > floor[:, None]
        if hopeful.any():
            rows = embeddings[hopeful.nonzero()[:, 0]]
            found.log_p[hopeful] = token_log_likelihood(self.model, found.ids[hopeful], rows)
            self.num_forward_passes += 2
        mean = found.log_p.sum(dim=-1) / text_positions(found.ids, self.end).sum(dim=-1)
        found.score = (found.cosine + weight * mean).masked_fill(~hopeful, -torch.inf)
        return found


def token_log_likelihood(model, ids: Tensor, embeddings: Tensor) -> Tensor:
    """(R, L) log p(x_i | the positions of other parity, e) over each text of ids (R, L) and its end token, 0 behind.

    Two half-masked passes stand for L leave-one-out ones.
    """
    log_p = torch.zeros(ids.shape, device=ids.device)
    for length, rows in shortest_canvases(ids, model.config.eos_token_id, model.config.canvas_lengths or ()):
        for part in rows.split(ROWS):
            log_p[part, :length] = _half_masked(model, ids[part, :length], embeddings[part])
    return log_p


def _half_masked(model, ids: Tensor, embeddings: Tensor) -> Tensor:
    """The same, all on the canvas that they come on."""
    rows, length = ids.shape
    text = text_positions(ids, model.config.eos_token_id)
    log_p = torch.zeros(rows * length, device=ids.device)
    condition = model.condition(embeddings)
    for parity in (0, 1):
        hidden = text & (torch.arange(length, device=ids.device) % 2 == parity)
        noised = ids.masked_fill(hidden, model.config.mask_token_id)
        positions = hidden.flatten().nonzero().squeeze(1)
        timestep = model.noise_schedule.timestep(hidden.float().mean(dim=1))
        targets = ids.flatten()[positions]
        output = model(noised, None, timestep, positions=positions, targets=targets, condition=condition)
        log_p[positions] = -output.losses.float()
    return log_p.view(rows, length)
