"""The presets: what each stands for, and how it meets single settings and checkpoints without a surrogate."""

import types

import pytest
import torch

from modeling_embinv import EmbInvError, EmbInvGenerationConfig, SearchSettings
from modeling_embinv.presets_embinv import DEFAULT_PRESET, PRESETS, choose
from modeling_embinv.settings_embinv import FEEDBACK, SETTINGS
from tests.tiny_models import bag_of_tokens, tiny_model, unit_vectors, with_surrogate

STANDARD = dict(num_candidates=24, num_corrections=4, num_beams=1, num_proposals=24, num_hops=2)


@pytest.fixture
def model():
    return tiny_model(surrogate_rank=2)


@pytest.fixture
def without():
    return tiny_model()


def test_presets_are_possible_settings():
    """A preset with a misspelt setting, or more corrections than anything judges."""
    assert list(PRESETS) == ["quick", "standard", "thorough"] and DEFAULT_PRESET == "standard"
    for name, preset in PRESETS.items():
        search = SearchSettings.of(dict(preset.settings))
        assert set(preset.settings) <= set(SETTINGS) and preset.name == name and preset.help
        assert preset.feedback is None or preset.feedback in FEEDBACK.choices
        assert search.is_search == (preset.feedback == "surrogate") == (name != "quick")


def test_a_named_preset_is_taken_and_single_settings_win(model):
    """A flag beside a preset that is lost, or a preset that is lost because of a flag."""
    chosen = choose(model, "standard", {"num_corrections": 2, "num_steps": 4})
    assert chosen.settings == {**STANDARD, "num_corrections": 2, "num_steps": 4}
    assert (chosen.preset, chosen.feedback, chosen.note) == ("standard", "surrogate", "")
    encode = bag_of_tokens([])
    assert choose(model, "thorough", {"feedback": encode}).feedback is encode
    search = {"num_candidates": 3}
    assert choose(model, "standard", {"search": search}).settings == {"search": search}  # a whole search replaces it


def test_without_a_name(model):
    """Documented commands with flags of their own whose texts change, or a plain call that writes a draft."""
    assert choose(model, None, {}).settings == STANDARD
    alone = choose(model, None, {"num_steps": 4})
    assert (alone.preset, alone.settings, alone.feedback) == (None, {"num_steps": 4}, "surrogate")
    encode = bag_of_tokens([])
    own = choose(model, None, {"num_candidates": 3, "feedback": encode})
    assert (own.preset, own.settings, own.feedback) == (None, {"num_candidates": 3}, encode)
    judged = choose(model, None, {"feedback": encode})
    assert (judged.preset, judged.settings, judged.feedback) == ("standard", STANDARD, encode)
    draft = choose(model, None, {"feedback": None})
    assert (draft.preset, draft.feedback) == ("quick", None)
    model.generation_config.num_candidates = 4  # a checkpoint that searches by itself knows best how
    assert choose(model, None, {}).settings == {} and choose(model, "quick", {}).settings["num_candidates"] == 1


def test_a_single_draft_is_measured(model, without):
    """The command gave quick texts a cosine, the pipeline did not: the quickstart's line was a KeyError."""
    assert choose(model, "quick", {}).feedback == "surrogate"
    assert choose(model, "quick", {"num_steps": 4}).feedback == "surrogate"
    assert choose(model, "quick", {"num_candidates": 4}).feedback is None  # it would choose among them
    assert choose(model, "quick", {"feedback": None}).feedback is None
    assert choose(without, "quick", {}).feedback is None


def test_a_single_draft_of_own_settings_is_measured(model, without):
    """`pipe(vectors, max_length=16)` dropped cosine and verdict, and the quickstart's own loop ended in a KeyError."""
    one = {"num_candidates": 1, "num_corrections": 0}
    for given in ({"max_length": 8}, {"guidance_scale": 2.0}, one, {"search": {"num_beams": 2}}):
        chosen = choose(model, None, given)
        assert (chosen.preset, chosen.settings, chosen.feedback) == (None, given, "surrogate")
        assert choose(model, None, {**given, "feedback": None}).feedback is None
        assert choose(without, None, given).feedback is None
    several = EmbInvGenerationConfig(num_candidates=3)
    searches = ({"num_candidates": 8}, {"search": SearchSettings(num_candidates=8)}, {"generation_config": several})
    for given in searches:  # they stay ranked by likelihood
        assert choose(model, None, given).feedback is None
    model.generation_config = several  # its own search is none of the call's where that has one draft
    assert choose(model, None, {"max_length": 8}).feedback is None
    for given in (one, {"search": None, "max_length": 8}, {"generation_config": EmbInvGenerationConfig()}):
        assert choose(model, None, given).feedback == "surrogate"
    with pytest.raises(EmbInvError, match="num_candidates must be a whole number"):
        choose(model, None, {"num_candidates": "8"})


def test_a_checkpoint_without_a_surrogate(without):
    """The default must run on every checkpoint, and say what it did; what was asked for by name must not be less."""
    chosen = choose(without, None, {})
    assert (chosen.preset, chosen.feedback) == ("quick", None) and chosen.settings == PRESETS["quick"].settings
    assert "no surrogate" in chosen.note and "\n" not in chosen.note
    for name in ("standard", "thorough"):
        with pytest.raises(EmbInvError, match=f"preset {name} needs a surrogate.*take quick, or the encoder"):
            choose(without, name, {})
    encode = bag_of_tokens([])
    judged = choose(without, "standard", {"feedback": encode})
    assert judged.feedback is encode and judged.settings == STANDARD and not judged.note
    assert choose(without, "quick", {}).note == ""


def test_quick_refuses_the_settings_of_a_search(model):
    """`--preset quick --num-proposals 9` ran without a word, and without nine proposals."""
    with pytest.raises(EmbInvError, match="num_proposals, stop_cosine are of a search: give num_candidates above 1"):
        choose(model, "quick", {"num_proposals": 9, "stop_cosine": 0.9})
    assert choose(model, "quick", {"num_proposals": 9, "num_candidates": 2}).settings["num_proposals"] == 9
    assert choose(model, "quick", {"num_proposals": 9, "num_candidates": 1}).settings["num_candidates"] == 1  # a sweep


@pytest.mark.parametrize("name", ["fast", 3, ["quick"]])
def test_an_unknown_preset_is_one_line(model, name):
    """A misspelt preset must not run as the default."""
    with pytest.raises(EmbInvError, match="preset must be one of quick, standard, thorough"):
        choose(model, name, {})


def rounds_of(model, vectors, **settings):
    seen = []
    generator = torch.Generator().manual_seed(0)
    output = model.generate(vectors, generator=generator, on_round=seen.append, **settings)
    return seen, output


@pytest.mark.parametrize("scouted", [False, True])
def test_each_round_is_reported(scouted):
    """A bar that jumps, a round that is counted twice, or a best text that is not the one that is returned."""
    model, vectors = with_surrogate(), unit_vectors(3)
    encode = bag_of_tokens([]) if scouted else "surrogate"
    settings = dict(num_candidates=3, num_corrections=4, num_beams=2, num_proposals=6, num_checked=2, num_hops=1)
    seen, output = rounds_of(model, vectors, feedback=encode, **settings)
    numbers = [one.number for one in seen]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0 and 0 < numbers[-1] <= 4
    assert all(one.total == 4 and one.rows.tolist() == [0, 1, 2] and one.cosine.shape == (3,) for one in seen)
    judges = [one.judge for one in seen]
    assert judges == (["surrogate"] * 3 + ["encoder"] * 2 if scouted else ["surrogate"] * 5)[: len(judges)]
    for judge in ("surrogate", "encoder"):
        rising = torch.stack([one.cosine for one in seen if one.judge == judge] or [torch.zeros(3)])
        assert (rising.diff(dim=0) >= -0.1).all()  # the score rises, of which the cosine is the most
    assert torch.equal(seen[-1].sequences, output.sequences) and torch.equal(seen[-1].cosine, output.cosine)
    plain = model.generate(vectors, generator=torch.Generator().manual_seed(0), feedback=encode, **settings)
    assert torch.equal(plain.sequences, output.sequences)  # to look changes nothing


def test_rounds_of_parts_and_of_later_searches(monkeypatch):
    """Rows of a part that pass for rows of the batch; a second search that begins at zero again."""
    model, vectors = with_surrogate(), unit_vectors(4)
    settings = dict(feedback="surrogate", num_candidates=2, num_corrections=2, num_beams=1, num_proposals=2)
    monkeypatch.setattr("modeling_embinv.search_embinv.TEXTS", 12)  # two vectors at a time
    seen, _ = rounds_of(model, vectors, num_searches=2, **settings)
    assert {tuple(one.rows.tolist()) for one in seen} >= {(0, 1), (2, 3)} and all(one.total == 4 for one in seen)
    for rows in ((0, 1), (2, 3)):
        numbers = [one.number for one in seen if tuple(one.rows.tolist()) == rows]
        assert numbers == sorted(set(numbers)) and numbers[0] == 0 and numbers[-1] > 2


def test_candidates_alone_are_reported_once():
    """Each of three searches without corrections said "round 0 of 0"."""
    seen, _ = rounds_of(with_surrogate(), unit_vectors(2), feedback="surrogate", num_candidates=2, num_searches=3)
    assert [(one.number, one.total) for one in seen] == [(0, 0)]


def test_no_search_has_no_rounds_and_what_is_raised_ends_it():
    """A Stop that does not stop."""
    model, vectors = with_surrogate(), unit_vectors(1)
    assert rounds_of(model, vectors)[0] == []
    calls = types.SimpleNamespace(count=0)

    def stop(one):
        calls.count += 1
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model.generate(vectors, on_round=stop, feedback="surrogate", num_candidates=2, num_corrections=3)
    assert calls.count == 1
