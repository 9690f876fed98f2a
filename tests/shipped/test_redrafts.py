"""Hypotheses written anew from left to right, their words favoured."""

from collections import Counter

import pytest
import torch

from modeling_embinv.causal_embinv import PLAINLY
from modeling_embinv.favoured_embinv import Favoured
from modeling_embinv.hypotheses_embinv import Hypotheses, Targets
from modeling_embinv.sampler_embinv import Sampler
from modeling_embinv.settings_embinv import SearchSettings
from tests.shipped.tiny_loop import loop_of
from tests.tiny_models import END, VOCAB, awaken, bag_of_tokens, causal_model, tiny_model, unit_vectors

L = 12
WORDS = torch.tensor([[5, 6, 5, 7, END, END], [8, 8, 8, 9, 10, 11], [4, END, END, END, END, END]])


def test_a_word_is_favoured_as_often_as_it_stands_there():
    """A bonus that stays after its word was written repeats it for ever; one that adds up favours doubled words."""
    written = torch.tensor([[5, 9], [8, 8], [4, 4]])
    words = Favoured.of(WORDS, END, torch.tensor([1.0, 2.0, 3.0]))
    found = words.added(torch.zeros(3, VOCAB), written)
    for row, (hypothesis, so_far, bonus) in enumerate(zip(WORDS.tolist(), written.tolist(), (1, 2, 3), strict=True)):
        left = Counter(word for word in hypothesis if word != END) - Counter(so_far)
        assert dict.fromkeys(left, bonus) == {
            word: found[row, word] for word in found[row].nonzero().flatten().tolist()
        }
    few = words.rows(torch.tensor([1])).added(torch.zeros(1, VOCAB), written[1:2])
    assert torch.equal(few, found[1:2])


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_large_bonus_writes_the_words_of_its_own_hypothesis(family):
    """Rows of the cache that leave with their texts would hand their words to other rows."""
    model, words = causal_model(family), WORDS.repeat(3, 1)
    model.decoder.bias.data[END] = 6.0  # a text ends when its words are written
    config = model.generation_config.with_changes(**PLAINLY, temperature=0.7, max_length=L)
    favoured = Favoured.of(words, END, torch.full((9,), 1000.0))
    generators = [torch.Generator().manual_seed(row) for row in range(9)]
    found = Sampler(model, unit_vectors(9), config, generators, favoured=favoured).run().ids
    for text, hypothesis in zip(found.tolist(), words.tolist(), strict=True):
        own = [word for word in hypothesis if word != END]
        assert Counter(text[: len(own)]) == Counter(own)
    assert len(found.unique(dim=0)) > 3  # their order is free
    assert len({int((text == END).sum()) for text in found}) > 1


def test_redrafts_are_of_their_own_text_and_vector():
    """Redrafts put behind another text's edits get its error by the scout, and another vector's aim."""
    model, e = causal_model(), unit_vectors(2)
    loop = loop_of(model, num_beams=2, num_proposals=7, num_redrafts=4, num_moves=0, word_bonus=100.0)
    ids = torch.stack([torch.arange(4, 4 + L), torch.arange(30, 30 + L)]).expand(2, -1, -1).clone()
    vectors = torch.stack([unit_vectors(2, seed=4), unit_vectors(2, seed=5)])
    state = Hypotheses.of(ids, vectors, torch.zeros(2, 2))
    found = loop.propose(state, Targets.of(e, torch.Generator().manual_seed(0))).view(2, 2, 7, L)
    for beam in range(2):
        own = (found[:, beam, :, :, None] == ids[0, beam]).any(dim=3)
        assert own[:, 3:].all()  # redrafts are made of its words alone
        assert own[:, :3].float().mean() > 0.6  # and edits keep most of them
    alone = loop.propose(
        state.rows(torch.tensor([1])), Targets.of(e, torch.Generator().manual_seed(0)).rows(torch.tensor([1]))
    )
    assert torch.equal(alone.view(2, 7, L), found[1])


def test_the_bonus_grows_over_the_copies():
    """One bonus for all copies keeps too few of the words in all of them, or leaves too few free."""
    model, seen = causal_model(), []
    loop = loop_of(model, num_beams=1, num_proposals=4, num_redrafts=4, word_bonus=3.0)

    def write(targets, changes, *_, favoured):
        seen.append(favoured)
        return torch.full((len(targets), L), 5)

    loop.denoiser.write = write
    state = Hypotheses.of(torch.full((2, 1, L), 5), unit_vectors(2)[:, None], torch.zeros(2, 1))
    loop.propose(state, Targets.of(unit_vectors(2), None))
    assert seen[0].bonus.view(2, 4).tolist() == [[0.75, 2.25, 3.75, 5.25]] * 2


def test_who_has_no_causal_order_has_no_redrafts():
    """A causal pass that never learned anything writes noise; asked for it, the model must say so before it works."""
    plain, causal = awaken(tiny_model()), causal_model()
    settings = SearchSettings(num_proposals=17)
    assert settings.redrafts_of(plain.config, 17) == 0 and settings.redrafts_of(causal.config, 17) == 2
    assert SearchSettings(num_redrafts=20).redrafts_of(causal.config, 9) == 9
    asked = {"num_corrections": 1, "num_redrafts": 1}
    with pytest.raises(ValueError, match="not trained from left to right|num_condition_tokens"):
        plain.generate(unit_vectors(2), feedback=bag_of_tokens([]), search=asked)


@pytest.mark.parametrize("redrafts", [0, 3, 6])
def test_a_search_of_redrafts_alone_or_of_none(redrafts):
    """The counts of a round must hold at both ends: no edit left, or no redraft."""
    model, calls = causal_model(), []
    search = dict(num_corrections=2, num_beams=2, num_proposals=6, num_redrafts=redrafts, num_checked=6)
    output = model.generate(unit_vectors(3), feedback=bag_of_tokens(calls), search=search)
    draft = model.generate(unit_vectors(3), feedback=bag_of_tokens([]))
    assert (output.cosine >= draft.cosine).all() and (output.cosine > draft.cosine).any()
    assert output.num_feedback_calls == sum(calls)
