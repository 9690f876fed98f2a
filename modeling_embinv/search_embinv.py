"""The closed loop: a search for the text whose vector is nearest to the given one.

The denoiser proposes texts, a judge ranks them: the encoder, or the model's surrogate of it. A search starts from
sampled candidates. Each round edits the best hypotheses of every vector in parallel: unlikely words are masked again,
words are inserted and deleted, spans change places; the denoiser fills in what is masked, given e. In one round, edits
may be edited again, so that a search leaves a text that no single edit improves. Where the encoder judges and the
model has a surrogate, the surrogate is its scout: it judges the first rounds in place of the encoder, and later
chooses the edits that the encoder embeds in one batch.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .causal_embinv import PLAINLY
from .conditioning_embinv import Hypothesis
from .diffusion_embinv import text_positions
from .edits_embinv import NUM_DRAWS
from .edits_embinv import likely_moves
from .edits_embinv import num_draws
from .edits_embinv import random_edits
from .favoured_embinv import Favoured
from .hypotheses_embinv import Hypotheses
from .hypotheses_embinv import SearchRound
from .hypotheses_embinv import Targets
from .hypotheses_embinv import pick
from .hypotheses_embinv import repeated
from .judge_embinv import Judge
from .judge_embinv import stop_cosine
from .settings_embinv import TEXTS
from .settings_embinv import SearchSettings

# a vector leaves the search after so many rounds without a better text
PATIENCE = 5
# of so many moves, one leaves a word out; the others swap two spans
DELETIONS = 3


def _copies(values: Tensor, count: int) -> Tensor:
    """(A, K, …) → (A · K · count, …): each of the K `count` times."""
    return values.repeat_interleave(count, dim=1).flatten(0, 1)


class ClosedLoop:
    """A search for the texts of vectors.

    Args:
        denoiser: `write(targets, changes, draft_ids, barred_ids)` gives ids (R, L), a text and ends;
            `token_log_likelihood(ids, embeddings)` says how likely each token of texts is. See `Denoiser`.
        settings: how wide and how long the search is.
        judge: ranks texts and has the last word; None ranks by their likelihood alone.
        scout: the surrogate beside an encoder that judges, see above; None leaves it out.
        on_round: called with each `SearchRound`, whose sequences have end tokens for padding.
    """

    def __init__(
        self,
        denoiser: Any,
        settings: SearchSettings,
        judge: Judge | None,
        scout: Judge | None = None,
        on_round: Callable[[SearchRound], None] | None = None,
    ) -> None:
        self.denoiser, self.settings = denoiser, settings
        self.judge, self.scout, self.on_round = judge, scout, on_round
        self.end, self.mask = denoiser.model.config.eos_token_id, denoiser.model.config.mask_token_id
        self.left_to_right = {**PLAINLY, "temperature": settings.candidate_temperature}
        self.num_drafts = settings.drafts_of(denoiser.model.config)
        self.num_checked = min(settings.num_checked, settings.num_proposals)
        # without a surrogate each edit costs a call of the encoder
        chooses = scout is not None or (judge is not None and judge.kind == "surrogate")
        self.num_proposals = settings.num_proposals if chooses else self.num_checked
        self.num_redrafts = settings.redrafts_of(denoiser.model.config, self.num_proposals)
        self.num_moves = settings.moves_of(denoiser.model.config, self.num_proposals)
        self.num_texts = self.num_proposals + settings.num_rewrites  # of each hypothesis

    def run(self, targets: Targets) -> Hypotheses:
        """The best text of each target, (B, 1, …); as many targets at a time as memory holds."""
        edits = self.settings.num_beams * self.num_texts * self.settings.hops_of("encoder")
        texts = max(self.settings.num_candidates, edits)  # of each target
        parts = torch.arange(len(targets)).split(max(1, TEXTS // texts))
        return Hypotheses.joined([self.searches(targets.rows(part)) for part in parts], dim=0)

    def searches(self, targets: Targets) -> Hypotheses:
        """The best text of each target, (B, 1, …), of several searches for those that no text has reached."""
        best = self.search(targets)
        for number in range(1, self.settings.num_searches):
            missed = (best.cosine[:, 0] < stop_cosine(self.judge)).nonzero().squeeze(1)
            if not len(missed):
                break
            again = self.search(targets.rows(missed), number)
            best.put(missed, Hypotheses.joined([best.rows(missed), again], dim=1).best(1))
        return best

    def search(self, targets: Targets, number: int = 0) -> Hypotheses:
        """The best text of each target, (B, 1, …): candidates, rounds by the scout, rounds by the judge.

        number: of the search; the candidates of the first one, 0, are reported.
        """
        num_rounds = self.settings.num_corrections
        scouted = self.settings.scouted_rounds if self.scout is not None else 0
        judge, done = self.scout if scouted else self.judge, number * num_rounds
        state = self.beam(targets, self.candidates(targets, judge), judge)
        if not number:
            self._report(targets, state, judge, 0)
        if scouted:
            state = self.rounds(targets, state, judge, scouted, done)
            state = self.beam(targets, state.ids, self.judge)
        return self.rounds(targets, state, self.judge, num_rounds - scouted, done + scouted).best(1)

    def beam(self, targets: Targets, texts: Tensor, judge: Judge | None) -> Hypotheses:
        """The best of texts (B, K, L), (B, num_beams, …)."""
        return self.weigh(judge, texts, targets.vectors).best(self.settings.num_beams)

    def rounds(
        self, targets: Targets, state: Hypotheses, judge: Judge | None, count: int, done: int = 0
    ) -> Hypotheses:
        """The beam (B, num_beams, …) after `count` rounds, before which `done` were counted; it changes in place."""
        num_beams = self.settings.num_beams
        stale = torch.zeros(len(targets), dtype=torch.long, device=state.ids.device)
        for number in range(done + 1, done + count + 1):
            active = ((state.cosine[:, 0] < stop_cosine(judge)) & (stale < PATIENCE)).nonzero().squeeze(1)
            if not len(active):
                break
            assert judge is not None  # without one there are no rounds
            before, rows = state.rows(active), targets.rows(active)
            after = Hypotheses.joined([before, self.round(judge, before, rows)], dim=1).best(num_beams)
            stale[active] = torch.where(after.score[:, 0] > before.score[:, 0] + 1e-6, 0, stale[active] + 1)
            state.put(active, after)
            self._report(targets, state, judge, number)
        return state

    def round(self, judge: Judge, state: Hypotheses, targets: Targets) -> Hypotheses:
        """New texts of a round (A, k, …) by its judge, those that could reach the beam."""
        floor, hops = state.worst(), self.settings.hops_of(judge.kind)
        if judge.kind == "surrogate" and hops > 1:
            texts = self.chained(judge, state, targets, hops)
            known = repeated(texts.ids)
            known[:, : state.ids.shape[1]] = True
            return self._nearest(judge, texts, known, targets.vectors, floor)
        if self.scout is None or judge is self.scout:
            return self.weigh(judge, self.propose(state, targets), targets.vectors, floor)
        chosen = self.chained(self.scout, state, targets, hops).best(self.settings.num_beams * self.num_checked)
        return self.weigh(judge, chosen.ids, targets.vectors, floor)

    def _report(self, targets: Targets, state: Hypotheses, judge: Judge | None, number: int) -> None:
        """Hands the best texts of a state (B, K, …) to `on_round`."""
        if self.on_round is not None:
            assert targets.index is not None  # `__post_init__` fills it in
            total = self.settings.num_searches * self.settings.num_corrections
            kind = None if judge is None else judge.kind
            best = state.ids[:, 0].clone(), state.cosine[:, 0].clone()  # the state changes in place
            self.on_round(SearchRound(number, total, targets.index, *best, kind))

    def candidates(self, targets: Targets, judge: Judge | None) -> Tensor:
        """(B, num_candidates, L): the text of temperature 0, and samples, of which num_drafts from left to right.

        Where that text has reached its vector, as the judge sees it, copies of it stand in place of samples.
        """
        first = self.denoiser.write(targets, {"temperature": 0.0})
        texts = first[:, None].repeat(1, self.settings.num_candidates, 1)
        num_others = self.settings.num_candidates - 1
        if not num_others:
            return texts
        missed = torch.arange(len(targets), device=first.device)
        if judge is not None:
            missed = missed[judge.cosine(first, targets.vectors) < judge.stop_cosine]
        if len(missed):
            texts[missed, 1:] = self.samples(targets.rows(missed), num_others)
        return texts

    def samples(self, targets: Targets, count: int) -> Tensor:
        """(B, count, L): texts of `candidate_temperature`, of which num_drafts from left to right."""
        strategy = self.denoiser.config.strategy
        masked = {
            "strategy": "confidence" if strategy == "autoregressive" else strategy,
            "temperature": self.settings.candidate_temperature,
        }
        written = [
            self.denoiser.write(targets.copies(number), changes)
            for number, changes in ((count - self.num_drafts, masked), (self.num_drafts, self.left_to_right))
            if number
        ]
        return torch.cat([rows.view(len(targets), -1, rows.shape[1]) for rows in written], dim=1)

    def propose(self, state: Hypotheses, targets: Targets, has_redrafts: bool = True) -> Tensor:
        """(A, num_beams · num_texts, L): every hypothesis edited, reordered, written anew, and corrected.

        Edits and redrafts are written given e + α(e − ê). `has_redrafts`: whether any text is written anew.
        """
        target = targets.vectors[:, None]
        aim = torch.nn.functional.normalize(target + self.settings.overshoot * (target - state.vectors), dim=-1)
        texts = [*self.edits(state, targets, aim), *self.moves(state, targets)]
        texts += self.redrafts(state, targets, aim) if has_redrafts else []
        texts += self.rewrites(state, targets)
        return torch.cat([rows.view(*state.ids.shape[:2], -1, rows.shape[1]) for rows in texts], dim=2).flatten(1, 2)

    def edits(self, state: Hypotheses, targets: Targets, aim: Tensor) -> list[Tensor]:
        """Every hypothesis with a few words changed, given an aim (A, num_beams, D)."""
        count = self.num_proposals - self.num_redrafts - self.num_moves
        if not count:
            return []
        rows = state.ids.shape[1] * count  # of each target
        ids, log_p = _copies(state.ids, count), _copies(state.log_p, count)
        draws = targets.draws(rows, NUM_DRAWS + ids.shape[1])
        drafts, barred = random_edits(ids, log_p, self.mask, self.end, draws)
        changes = {"temperature": self.settings.candidate_temperature, "num_steps": 1, "strategy": "confidence"}
        return [self.denoiser.write(targets.copies(rows, _copies(aim, count)), changes, drafts, barred)]

    def moves(self, state: Hypotheses, targets: Targets) -> list[Tensor]:
        """Every hypothesis with two spans swapped, or with a word less, as the causal order likes them best."""
        count = self.num_moves
        if not count:
            return []
        num_beams, ids = state.ids.shape[1], state.ids.flatten(0, 1)
        follow = self.denoiser.follow_logits(ids, targets.vectors.repeat_interleave(num_beams, dim=0))
        num_deletions = count // DELETIONS
        draws = targets.draws(num_beams, num_draws(ids.shape[1]))
        moved = likely_moves(ids, follow, self.end, count - num_deletions, num_deletions, draws)
        return [torch.cat(moved, dim=1).flatten(0, 1)]

    def redrafts(self, state: Hypotheses, targets: Targets, aim: Tensor) -> list[Tensor]:
        """Every hypothesis written anew from left to right, given an aim: its words have a bonus, their order is free.

        The bonus grows evenly over the copies of a hypothesis, to twice `word_bonus`.
        """
        count = self.num_redrafts
        if not count:
            return []
        rows = state.ids.shape[1] * count
        steps = (torch.arange(count, device=aim.device) + 0.5) / count
        bonus = (2 * self.settings.word_bonus * steps).repeat(len(targets) * state.ids.shape[1])
        words = Favoured.of(_copies(state.ids, count), self.end, bonus)
        aims = targets.copies(rows, _copies(aim, count))
        return [self.denoiser.write(aims, self.left_to_right, favoured=words)]

    def rewrites(self, state: Hypotheses, targets: Targets) -> list[Tensor]:
        """What the corrector writes of every hypothesis; nothing where it is not asked."""
        count = self.settings.num_rewrites
        if not count:
            return []
        hypothesis = Hypothesis(_copies(state.ids, count), _copies(state.vectors, count))
        rows = targets.copies(state.ids.shape[1] * count)
        return [self.denoiser.write(rows, self.left_to_right, hypothesis=hypothesis)]

    def chained(self, judge: Judge, state: Hypotheses, targets: Targets, hops: int) -> Hypotheses:
        """Edits of texts (A, num_beams, …), edits of the best of these, and so on, by the surrogate.

        Where nobody else judges, and if there are others, the later ones are no redrafts: these take a pass a token.
        The first of all are the texts themselves, whose scores are −∞: neither they nor copies of them are picked.
        """
        has_redrafts = judge is self.scout or self.num_texts == self.num_redrafts
        start = replace(state, score=torch.full_like(state.score, -torch.inf))
        texts = Hypotheses.joined([start, self.scouted(judge, state, targets)], dim=1)
        for _ in range(hops - 1):
            parents = self._with_likelihood(texts.best(self.settings.num_beams), targets.vectors, weight=0.0)
            texts = Hypotheses.joined([texts, self.scouted(judge, parents, targets, has_redrafts)], dim=1)
        return texts

    def scouted(self, judge: Judge, state: Hypotheses, targets: Targets, has_redrafts: bool = True) -> Hypotheses:
        """Edits of texts, with vectors by the surrogate.

        Its error on a text whose vector has been computed is subtracted from the vectors of its edits.
        """
        ids = self.propose(state, targets, has_redrafts)
        vectors, _ = judge.vectors(torch.cat([state.ids, ids], dim=1))
        of_state, of_edits = vectors.split([state.ids.shape[1], ids.shape[1]], dim=1)
        error = (of_state - state.vectors).repeat_interleave(ids.shape[1] // state.ids.shape[1], dim=1)
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
        return self._nearest(judge, Hypotheses.of(ids, vectors, cosine), copies, embeddings, floor)

    def _nearest(
        self, judge: Judge, texts: Hypotheses, copies: Tensor, embeddings: Tensor, floor: Tensor | None
    ) -> Hypotheses:
        """The nearest of texts (A, K, …), without copies (A, K) bool, and their scores."""
        # where cosine alone ranks, no more of them can reach the beam
        count = self.settings.num_beams * (2 if judge.likelihood_weight else 1)
        nearest = texts.cosine.masked_fill(copies, -torch.inf).topk(min(count, texts.ids.shape[1]), dim=1).indices
        texts = Hypotheses.of(*(pick(values, nearest) for values in (texts.ids, texts.vectors, texts.cosine)))
        return self._with_likelihood(texts, embeddings, judge.likelihood_weight, floor)

    def _with_likelihood(
        self, texts: Hypotheses, embeddings: Tensor, weight: float, floor: Tensor | None = None
    ) -> Hypotheses:
        """Scores and likelihoods filled in, where log p ≤ 0 leaves a text a chance."""
        hopeful = torch.ones_like(texts.score, dtype=torch.bool) if floor is None else texts.cosine > floor[:, None]
        if hopeful.any():
            rows = embeddings[hopeful.nonzero()[:, 0]]
            texts.log_p[hopeful] = self.denoiser.token_log_likelihood(texts.ids[hopeful], rows)
        mean = texts.log_p.sum(dim=-1) / text_positions(texts.ids, self.end).sum(dim=-1)
        texts.score = (texts.cosine + weight * mean).masked_fill(~hopeful, -torch.inf)
        return texts
