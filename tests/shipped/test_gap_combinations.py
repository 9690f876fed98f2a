"""Candidates of the gap search that need no denoiser: a token less, and several gaps at once."""

import torch
from torch.nn.functional import normalize, one_hot

from modeling_embinv.gap_combinations_embinv import MOST_GAPS, combined, fitted_changes, shortened
from modeling_embinv.gap_proposals_embinv import Proposer
from modeling_embinv.gap_search_embinv import GapSearch, TextJudge
from modeling_embinv.gap_states_embinv import Gap, Hypothesis, RedactedText, TextSearch
from modeling_embinv.settings_embinv import FillSettings
from tests.shipped.word_tokenizer import SPECIAL, TOKENIZER
from tests.shipped.word_tokenizer import WORDS as LISTED
from tests.tiny_models import (
    END,
    MASK,
    VOCAB,
    awaken,
    tiny_model,
    unit_vectors,
    with_surrogate,
    with_vocabulary,
)

WORDS = unit_vectors(VOCAB, seed=5)
SHIFT = unit_vectors(1, seed=7)[0]


def additive(fillings: tuple) -> torch.Tensor:
    """(D,) a sum over gaps and the known words, so that a filling changes the vector by the same beside any other."""
    return 6 * SHIFT + sum(WORDS[list(filling)].sum(dim=0) * (1 + gap / 4) for gap, filling in enumerate(fillings))


def search_of(target: tuple, tried: list[tuple]) -> TextSearch:
    """A search that has tried some fillings of its gaps; the judge's vectors are not of length 1."""
    gaps = tuple(Gap(lengths=(1, 2)) for _ in target)
    text = RedactedText(tuple((7,) for _ in range(len(target) + 1)), (), gaps)
    search = TextSearch(text, normalize(additive(target), dim=-1), [torch.ones(VOCAB, dtype=torch.bool)] * len(gaps))
    for one in tried:
        cosine = float(normalize(additive(one), dim=-1) @ search.target)
        search.tried[one] = Hypothesis(one, (-1.0,) * len(one), additive(one), cosine, cosine)
    search.rank(6)
    return search


def singles(best: tuple, others: dict[int, list[tuple]]) -> list[tuple]:
    changed = [(*best[:gap], one, *best[gap + 1 :]) for gap, fillings in others.items() for one in fillings]
    return [best, *changed]


def test_the_changes_add_up():
    """Changes that belong to another gap, or that are not measured from the best text, predict another vector."""
    best = ((11,), (22,), (30,))
    search = search_of(best, singles(best, {0: [(10,), (12,)], 1: [(20, 21), (23,)]}))
    changes = fitted_changes(search)
    for row, (gap, filling) in enumerate(changes.fillings):
        assert int(changes.gaps[row]) == gap
        assert bool(changes.is_present[row]) == (best[gap] == filling)
        change = additive((*best[:gap], filling, *best[gap + 1 :])) - additive(best)
        # the ridge holds back a little of what was seen once
        assert change.norm() < 1e-6 or torch.cosine_similarity(changes.vectors[row], change, dim=0) > 0.9


def test_a_text_that_is_two_changes_away_comes_first():
    """Where each change alone makes the text worse, a search that fills one gap after another stands still."""
    truth = ((10,), (20,), (30,), (40,))
    best = ((11,), (21,), (30,), (40,))
    search = search_of(truth, singles(best, {0: [(10,), (12,)], 1: [(20,), (22,)], 2: [(31,)]}))
    candidates = combined(search)
    assert max(candidates, key=lambda one: one.priority).fillings == truth
    assert len({one.fillings for one in candidates}) == len(candidates)
    for one in candidates:
        assert one.fillings not in search.tried and one.parent is search.best
        num_changed = sum(a != b for a, b in zip(one.fillings, search.best.fillings, strict=True))
        assert 0 < num_changed <= MOST_GAPS


def test_a_combination_has_the_log_p_of_its_fillings():
    """A score with the log p of the words that were replaced ranks unlikely texts as likely ones."""
    search = search_of(((10,), (20,)), singles(((11,), (21,)), {0: [(10,)], 1: [(20,)]}))
    tried = dict(search.tried)
    for fillings, one in tried.items():
        log_p = tuple(-float(filling[0]) for filling in fillings)
        search.tried[fillings] = Hypothesis(fillings, log_p, one.vector, one.cosine, one.score)
    search.rank(6)
    for one in combined(search):
        assert one.log_p == tuple(-float(filling[0]) for filling in one.fillings)


def test_the_search_changes_two_gaps_at_once():
    """It ended at the best text that no change of one gap betters, though all its words had been tried."""
    model = awaken(tiny_model())
    for first, second in zip(range(10, 20), range(40, 50), strict=True):

        def encode(ids: torch.Tensor, first: int = first, second: int = second) -> torch.Tensor:
            """Two words that say something together: each alone leads away from it."""
            counts = (one_hot(ids, VOCAB).float() * (ids != END)[..., None]).sum(dim=1)
            apart = (counts[:, first] - counts[:, second])[:, None] * SHIFT
            return normalize(counts @ WORDS + 1.5 * apart, dim=-1)

        text = [7, first, 9, second, 8, 30, 31, 32]
        row = [MASK if token in (first, second) else token for token in text]
        target = encode(torch.tensor([text]))
        output = model.fill(target, [row], feedback=encode, num_beams=1, num_proposals=VOCAB, num_sweeps=2)
        assert sorted(output.texts[0].ids) == sorted(text)  # this encoder does not know their order


def test_gaps_with_nothing_else_to_try_combine_with_none():
    """A list of one word leaves a gap without another filling: the search ended in a traceback of torch."""
    best = ((11,), (21,), (30,))
    assert combined(search_of(best, [best])) == []
    search = search_of(((10,), (21,), (30,)), singles(best, {0: [(10,), (12,)]}))
    assert all(one.fillings[1:] == best[1:] for one in combined(search))


def test_tokens_too_many_are_taken_out_one_by_one():
    """Two words too many need two rounds: a search that looks once keeps the second."""
    longer, truth = ((10, 11), (20, 21)), ((10,), (20,))
    search = search_of(truth, [longer])
    judge = TextJudge(
        lambda items: torch.stack([normalize(additive(fillings), dim=-1) for _, fillings in items]), "surrogate"
    )
    gap_search = GapSearch(
        Proposer(awaken(tiny_model()), 2.0), FillSettings(), judge, None, lambda items: [True] * len(items)
    )
    gap_search._climb([search], (lambda one: one.best.fillings != truth, shortened))
    assert search.best.fillings == truth


def test_a_word_too_much_is_taken_out():
    """The surrogate calls a text found that has a word too many, and the search ended there: two of these eight."""
    model, num_longer = with_surrogate(**with_vocabulary(len(SPECIAL + LISTED))).requires_grad_(False), 0
    model.generation_config = type(model.generation_config)(search={"stop_cosine": -1.0})  # any text is found
    known, comma = (tuple(TOKENIZER(piece, add_special_tokens=False)["input_ids"]) for piece in (", you owe us", ","))
    for seed in (*range(16, 20), *range(24, 28)):
        text = f"dear anna , you owe us {LISTED[seed % len(LISTED)]}"
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        target = normalize(model.embed(torch.tensor([[*ids, END]])) + 0.5 * unit_vectors(1, seed=seed), dim=-1)
        redacted, settings = "*** , you owe us ▇▇▇ , ▇▇▇", {"max_gap_tokens": 3, "num_beams": 2}
        (filled,) = model.fill(target, [redacted], tokenizer=TOKENIZER, likelihood_weight=0.0, **settings).texts
        fillings = tuple(gap.ids for gap in filled.gaps)
        for gap, filling in enumerate(fillings):
            for at in range(len(filling) if len(filling) > 1 else 0):
                shorter = (*fillings[:gap], (*filling[:at], *filling[at + 1 :]), *fillings[gap + 1 :])
                row = [*shorter[0], *known, *shorter[1], *comma, *shorter[2], END]
                cosine = float(normalize(model.embed(torch.tensor([row])), dim=-1) @ target[0])
                assert cosine <= filled.cosine + 1e-5
                num_longer += 1
    assert num_longer
