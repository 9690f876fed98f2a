"""Moves of a search: spans swapped and words left out, as the causal order likes them best."""

import pytest
import torch

from modeling_embinv.edits_embinv import LONGEST, likely_moves, num_draws
from modeling_embinv.hypotheses_embinv import Hypotheses, Targets
from modeling_embinv.likelihood_embinv import follow_logits
from modeling_embinv.settings_embinv import SearchSettings
from tests.shipped.tiny_loop import loop_of
from tests.tiny_models import END, awaken, bag_of_tokens, causal_model, texts, tiny_model, unit_vectors

L = 12
TEXT = list(range(10, 19))  # nine different words


def row(words: list[int]) -> list[int]:
    return words + [END] * (L - len(words))


def knows_the_order(words: list[int], true: list[int]) -> torch.Tensor:
    """(L, L) logits of a causal head that likes the true text's next word, and its end, and knows no other."""
    ids = row(words)
    after = dict(zip([None, *true], [*true, END], strict=True))
    before = [None, *ids[:-1]]
    return torch.tensor([[10.0 * (word == after.get(last)) for word in ids] for last in before])


def moves(words: list[list[int]], follow: list[torch.Tensor], swaps: int, deletions: int, draws=None):
    ids = torch.tensor([row(one) for one in words])
    draws = torch.full((len(ids), num_draws(L)), 0.5) if draws is None else draws
    return likely_moves(ids, torch.stack(follow), END, swaps, deletions, draws)


def test_a_swap_undoes_any_swap():
    """A wrong seam, a span cut one word short, or an end that counts as a word, and the right order is never tried."""
    swapped = [
        TEXT[:a] + TEXT[b:c] + TEXT[a:b] + TEXT[c:]
        for a in range(9) for b in range(a + 1, 9) for c in range(b + 1, 10) if min(b - a, c - b) <= LONGEST
    ]  # fmt: skip
    found, _ = moves(swapped, [knows_the_order(words, TEXT) for words in swapped], 1, 0)
    assert len(swapped) > 100 and found[:, 0].tolist() == [row(TEXT)] * len(swapped)


def test_a_deletion_takes_the_word_that_is_too_many():
    """The word behind it, or the one before, would go in its place."""
    longer = [[*TEXT[:place], 30, *TEXT[place:]] for place in range(10)]
    _, found = moves(longer, [knows_the_order(words, TEXT) for words in longer], 0, 1)
    assert found[:, 0].tolist() == [row(TEXT)] * len(longer)


def test_moves_are_different_and_no_text_is_empty():
    """Draws with replacement give the likeliest move again and again; a text of one word would be deleted."""
    ids = [TEXT, TEXT[:2], TEXT[:1], list(range(10, 22))]
    draws = torch.rand(4, num_draws(L), generator=torch.Generator().manual_seed(0))
    swapped, shorter = moves(ids, [torch.zeros(L, L)] * 4, 20, 5, draws)
    assert len(swapped[0].unique(dim=0)) == 20 and len(shorter[0].unique(dim=0)) == 5
    for text, found in zip(ids, swapped.tolist(), strict=True):
        assert all(sorted(one) == sorted(row(text)) for one in found)
    assert all(len([word for word in one if word != END]) == 8 for one in shorter[0].tolist())
    # a text of two words has one swap, one of a single word none: they stand there as they were
    assert [one for one in swapped[1].tolist() if one != row(TEXT[:2])] == [row(TEXT[1::-1])]
    assert swapped[2].tolist() == [row(TEXT[:1])] * 20 and shorter[2].tolist() == [row(TEXT[:1])] * 5
    assert (shorter[3][:, -1] == END).all()  # a full canvas


def test_a_canvas_of_one_word_has_no_moves():
    """There is no pair of spans to choose from: a search of texts of one token ended in an IndexError."""
    model = causal_model(surrogate_rank=2, correction_share=0.25)
    search = dict(num_candidates=3, num_corrections=2, num_proposals=8, num_redrafts=2, num_rewrites=2)
    output = model.generate(unit_vectors(2), feedback="surrogate", max_length=1, search=search)
    assert output.sequences.shape == (2, 1) and (output.sequences != END).all()
    swapped, shorter = likely_moves(torch.tensor([[7]]), torch.zeros(1, 1, 1), END, 3, 2, torch.rand(1, num_draws(1)))
    assert swapped.tolist() == [[[7]] * 3] and shorter.tolist() == [[[7]] * 2]


def test_likelier_moves_are_drawn_more_often():
    """Noise of another size than the gains, and the causal order has no say, or the same moves come in every round."""
    text, wanted = [11, 10, 12, 13], row([10, 11, 12, 13])
    follow = knows_the_order(text, [10, 11, 12, 13]) * 0.2  # a gain of 2 at each of three seams
    draws = torch.rand(300, num_draws(L), generator=torch.Generator().manual_seed(1))
    found, _ = moves([text] * 300, [follow] * 300, 1, 0, draws)
    share = (found[:, 0] == torch.tensor(wanted)).all(dim=1).float().mean()
    flat, _ = moves([text] * 300, [follow * 0] * 300, 1, 0, draws)
    assert 0.8 < share < 1 and (flat[:, 0] == torch.tensor(wanted)).all(dim=1).float().mean() < 0.3


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_logits_of_a_texts_own_words(family):
    """Those of another text's words, or of the place behind, rank every move wrongly."""
    model, ids, e = causal_model(family), texts(5)[:, :L], unit_vectors(5)
    ids[0, 4:] = END
    found = follow_logits(model, ids, e)
    whole = model(ids, e, None, causal=True).logits
    assert torch.allclose(found, whole.gather(2, ids[:, None].expand(-1, L, -1)), atol=1e-4)


def test_moves_stand_behind_the_edits_of_their_own_text():
    """Behind another text's edits they get its error by the scout; with another's noise a row depends on its batch."""
    model, e = causal_model(), unit_vectors(2)
    loop = loop_of(model, num_beams=2, num_proposals=8, num_redrafts=1, num_moves=5)
    ids = torch.stack([torch.arange(4, 4 + L), torch.arange(30, 30 + L)]).expand(2, -1, -1).clone()
    state = Hypotheses.of(ids, torch.stack([unit_vectors(2, seed=4), unit_vectors(2, seed=5)]), torch.zeros(2, 2))
    targets = lambda: Targets.of(e, torch.Generator().manual_seed(0))  # noqa: E731
    found = loop.propose(state, targets()).view(2, 2, 8, L)
    for beam in range(2):
        for text in found[:, beam, 2:7].flatten(0, 1).tolist():
            kept = [word for word in text if word != END]
            assert set(kept) <= set(ids[0, beam].tolist()) and len(kept) == len(set(kept)) >= L - 1
    one = torch.tensor([1])
    assert torch.equal(loop.propose(state.rows(one), targets().rows(one)).view(2, 8, L), found[1])


@pytest.mark.parametrize("moved, redrafts", [(0, 0), (6, 0), (6, 2), (3, 6)])
def test_the_counts_of_a_round_at_both_ends(moved, redrafts):
    """No edit left, or more asked for than there are proposals: the texts of a round must be as many as it says."""
    model = causal_model()
    loop = loop_of(model, num_beams=2, num_proposals=6, num_redrafts=redrafts, num_moves=moved)
    state = Hypotheses.of(texts(4)[:, :L].view(2, 2, L), torch.zeros(2, 2, 16), torch.zeros(2, 2))
    assert loop.propose(state, Targets.of(unit_vectors(2), torch.Generator())).shape == (2, 2 * 6, L)


def test_who_has_no_causal_order_has_no_moves():
    """A causal pass that never learned anything ranks moves at random; asked for, it must be said before the work."""
    plain, causal = awaken(tiny_model()), causal_model()
    settings = SearchSettings(num_proposals=16)
    assert settings.moves_of(plain.config, 16) == 0 and settings.moves_of(causal.config, 16) == 8
    with pytest.raises(ValueError, match="not trained from left to right|num_condition_tokens"):
        plain.generate(unit_vectors(2), feedback=bag_of_tokens([]), search={"num_corrections": 1, "num_moves": 1})
