"""The table of settings, and that whatever is made from it agrees with it."""

import argparse
import copy
import json
import pickle
import runpy
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_embinv import EmbInvError, EmbInvForMaskedDiffusion, EmbInvGenerationConfig, SearchSettings
from modeling_embinv.cli.options import add_model, sampler_settings
from modeling_embinv.cli.resources import feedback_of
from modeling_embinv.pipeline_embinv import EmbeddingInversionPipeline
from modeling_embinv.settings_embinv import FEEDBACK, SETTINGS, SamplerSettings, feedback_by_name
from tests.shipped.word_tokenizer import SPECIAL, TOKENIZER, WORDS
from tests.tiny_models import awaken, tiny_model, unit_vectors, with_vocabulary

ROOT = Path(__file__).parents[2]
# every setting of the search with a value that is not its default, as older checkpoints have them in their files
OLD = dict(
    num_candidates=3, num_corrections=2, num_beams=2, num_proposals=10, num_checked=4, num_scouted=1, num_hops=2,
    num_searches=2, candidate_temperature=0.5, likelihood_weight=0.01, overshoot=1.0,
)  # fmt: skip


def flags(**options) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_model(parser, **options)
    return parser


def test_old_files_load_to_the_same_settings(tmp_path):
    """A file from before the search had settings of its own must not fall back to the defaults."""
    (tmp_path / "generation_config.json").write_text(json.dumps({**OLD, "num_steps": 3, "transformers_version": "5"}))
    loaded = EmbInvGenerationConfig.from_pretrained(tmp_path)
    assert (
        set(OLD)
        == set(SearchSettings.table())
        - {"num_rewrites", "num_drafts", "num_moves", "num_redrafts", "word_bonus", "stop_cosine"}
        == set(SearchSettings(**OLD).changed())
    )
    assert loaded.search == SearchSettings(**OLD) and loaded.num_steps == 3
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_steps": 3, "search": OLD}))
    assert EmbInvGenerationConfig.from_pretrained(tmp_path) == loaded
    loaded.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert {**saved, "transformers_version": None} == {**OLD, "num_steps": 3, "transformers_version": None}
    wider = EmbInvGenerationConfig.from_pretrained(tmp_path, num_beams=5)
    assert wider.search == SearchSettings(**{**OLD, "num_beams": 5})


def test_every_way_to_give_a_search_is_the_same():
    """Keywords, an object and a dictionary that differ in one text would make results hard to repeat."""
    model, vectors = awaken(tiny_model(surrogate_rank=2)), unit_vectors(3)

    def found(**settings):
        generator = torch.Generator().manual_seed(0)
        return model.generate(vectors, feedback="surrogate", generator=generator, **settings).sequences

    expected = found(**OLD)
    assert not torch.equal(expected, found(num_candidates=3))
    assert torch.equal(expected, found(search=SearchSettings(**OLD))) and torch.equal(expected, found(search=OLD))
    assert torch.equal(expected, found(search={**OLD, "num_beams": 1}, num_beams=2))  # a keyword has the last word
    model.generation_config.num_hops = 1  # of the model's own search nothing stays, or only what no keyword changes
    assert torch.equal(expected, found(search=OLD)) and torch.equal(found(**OLD), expected)
    model.generation_config.search = {**OLD, "num_candidates": 9}
    assert torch.equal(expected, found(num_candidates=3))


def test_a_call_of_a_pipeline_replaces_what_it_was_made_with():
    """A pipeline with a preset filled no texts, one with a seed took no generator, one with a generator no seed."""
    model = awaken(tiny_model(surrogate_rank=2, **with_vocabulary(len(SPECIAL + WORDS))))
    vectors, texts = unit_vectors(2), ["dear ▇▇▇"] * 2

    def made(**settings):
        return EmbeddingInversionPipeline(model=model, tokenizer=TOKENIZER, **settings)

    def generator():
        return torch.Generator().manual_seed(5)

    plain, sampled = made(), {"temperature": 1.0}
    filled = plain(vectors, texts=texts, feedback="surrogate")
    for settings in ({"preset": "quick"}, {"seed": 1}, {"generator": generator()}):
        assert made(**settings)(vectors, texts=texts, feedback="surrogate") == filled
    # settings of the other task are left for the calls of that task; they were unknown ones
    for_both = made(num_steps=4, num_sweeps=1, feedback="surrogate")
    assert for_both(vectors, texts=texts) == plain(vectors, texts=texts, feedback="surrogate", num_sweeps=1)
    assert for_both(vectors) == plain(vectors, num_steps=4, feedback="surrogate")
    own = made(generation_config=model.generation_config)
    assert (
        own(vectors, texts=texts, feedback="surrogate") == filled == made(texts=texts)(vectors, feedback="surrogate")
    )
    assert made(texts=texts, preset="quick")(vectors, feedback="surrogate") == filled
    assert plain(iter(vectors), texts=texts, feedback="surrogate", num_workers=0) == filled
    assert plain([], texts=[]) == []
    expected = plain(vectors, seed=5, **sampled)
    assert made(generator=generator(), **sampled)(vectors) == expected != plain(vectors, **sampled)
    assert made(seed=1, **sampled)(vectors, generator=generator()) == expected
    assert made(generator=torch.Generator(), **sampled)(vectors, seed=5) == expected
    for arguments in ({"seed": 1, "generator": generator()}, {"preset": "quick", "texts": texts}):
        with pytest.raises(EmbInvError, match="not both|leave it out"):
            plain(vectors, **arguments)


def test_a_checkpoints_own_class_is_taken():
    """Code that came with a checkpoint is another module: its settings are no instances of this package's class."""

    @dataclass
    class Foreign:
        num_candidates: int = 4

    assert SearchSettings.of(Foreign()) == SearchSettings(num_candidates=4)


@pytest.mark.parametrize(
    "search, message",
    [
        (7, "search must be SearchSettings or a dictionary"),
        (SearchSettings, "search must be SearchSettings or a dictionary"),
        ({"candidates": 3}, "unknown search setting 'candidates'; known are num_candidates"),
        ({"num_steps": 3}, "unknown search setting"),
        ({3: 3}, "unknown search setting 3"),
        ({"num_beams": 0}, "num_beams must be a whole number from 1 to 1,000, got 0"),
        ({"num_scouted": 1.5}, "num_scouted must be a whole number from 0 to 10,000, or None, got 1.5"),
        ({"num_beams": 1000, "num_proposals": 10_000}, "at most 131,072 texts"),
        ({"num_beams": 1000, "num_proposals": 1, "num_rewrites": 10_000}, "at most 131,072 texts"),
    ],
)
def test_an_impossible_search_is_one_line(search, message):
    """A misspelt setting must not run with the default."""
    for make in (SearchSettings.of, lambda search: EmbInvGenerationConfig(search=search)):
        with pytest.raises(EmbInvError, match=message):
            make(search)
    if isinstance(search, dict) and set(search) <= set(SearchSettings.table()):
        with pytest.raises(EmbInvError, match=message):
            SearchSettings(**search)
        with pytest.raises(EmbInvError, match=message):
            replace(SearchSettings(), **search)


def test_settings_are_plain_values_and_stay():
    """Numbers of numpy that JSON cannot write; a change for one call that stays in the model's own settings."""
    search = SearchSettings(num_candidates=np.int64(3), overshoot=np.float32(0.5))
    assert type(search.num_candidates) is int and type(search.overshoot) is float
    with pytest.raises(AttributeError):
        search.num_candidates = 4
    config = EmbInvGenerationConfig(search=search, num_beams=2)
    assert (config.num_candidates, config.num_beams, search.num_beams) == (3, 2, 4)
    changed = config.with_changes(num_beams=7, num_steps=2)
    assert (changed.num_beams, changed.num_steps, changed.num_candidates) == (7, 2, 3)
    assert (config.num_beams, config.num_steps) == (2, 8) and config != changed
    for same in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert same == config and same.search == config.search
    with pytest.raises(AttributeError, match="has no attribute nothing"):
        config.nothing  # noqa: B018


def test_a_misspelt_setting_of_the_models_own_is_refused(tmp_path):
    """`model.generation_config.num_step = 16` was taken without a word, and every text was written in 8 steps."""
    config = EmbInvGenerationConfig()
    for name, message in (("num_step", "known are strategy"), ("max_new_tokens", "use max_length")):
        with pytest.raises(EmbInvError, match=f"unknown generation argument {name}.*{message}"):
            setattr(config, name, 16)
    config.num_steps, config.num_beams = 16, 2
    config.save_pretrained(tmp_path)
    loaded = EmbInvGenerationConfig.from_pretrained(tmp_path, num_hops=1)
    assert loaded.settings() == config.with_changes(num_hops=1).settings()
    assert copy.deepcopy(loaded) == pickle.loads(pickle.dumps(loaded)) == loaded


def test_repr_and_docstrings_show_the_settings():
    """22 lines of defaults hide the one that differs; `help` without the settings says nothing."""
    assert repr(SearchSettings()) == "SearchSettings()"
    assert repr(SearchSettings(num_candidates=4, overshoot=1.0)) == "SearchSettings(num_candidates=4, overshoot=1.0)"
    config = EmbInvGenerationConfig(num_steps=3, search={"num_candidates": 4})
    assert repr(config) == "EmbInvGenerationConfig(num_steps=3, num_candidates=4)" and eval(repr(config)) == config
    assert all(f"\n    {name}: " in EmbInvGenerationConfig.__doc__ for name in SamplerSettings.table())
    assert all(f"\n    {name}: " in SearchSettings.__doc__ for name in SearchSettings.table())


def test_each_setting_is_described_and_its_default_allowed():
    """A row without words, a default out of bounds, or an unexplained None."""
    for name, setting in SETTINGS.items():
        assert setting.check(setting.default) == setting.default and setting.help and not setting.help.endswith(".")
        assert (setting.default is None) == bool(setting.none) and name == setting.name
        assert (setting.low is not None) == (setting.kind in (int, float))
    assert FEEDBACK.check(FEEDBACK.default) == "none"


@pytest.mark.parametrize("sweep", [False, True])
def test_flags_are_made_from_the_table(sweep):
    """A flag with a text or default of its own parts from the setting that it sets."""
    parser = flags(sweep=sweep)
    actions = {action.dest: action for action in parser._actions}
    assert set(actions) & set(SETTINGS) == {name for name, one in SETTINGS.items() if one.kind in (int, float, str)}
    for name, one in {**SETTINGS, "feedback": FEEDBACK}.items():
        if name not in actions:
            continue
        action = actions[name]
        assert action.default is None and action.help.startswith(one.help)
        assert f"(default: {one.default_text})" in action.help
        assert all(word in parser.format_help() for word in one.choices)
    assert sampler_settings(parser.parse_args([])) == {}
    for name, value in {**OLD, "num_steps": 3, "guidance_scale": 1.5, "strategy": "euler"}.items():
        given = sampler_settings(parser.parse_args([f"--{name}", str(value)]))
        assert given == {name: [value] if sweep else value}


@pytest.mark.parametrize("sweep", [False, True])
def test_flags_have_the_bounds_of_the_table(sweep):
    """A value out of bounds is found after a model of gigabytes was loaded, or never."""
    parser = flags(sweep=sweep)
    for name, one in SETTINGS.items():
        if one.kind in (int, float):
            for value in (one.low, one.high):
                assert sampler_settings(parser.parse_args([f"--{name}={one.kind(value)}"]))
            with pytest.raises(EmbInvError, match=f"{name} must be a"):
                sampler_settings(parser.parse_args([f"--{name}={one.kind(one.high) + 1}"]))
    with pytest.raises(EmbInvError, match="strategy must be one of sequential, euler"):
        sampler_settings(parser.parse_args(["--strategy", "greedy"]))


def test_the_flags_need_no_torch():
    """`embinv --help` took seconds, in which torch and transformers were imported for nothing."""
    code = (
        "import sys, types; package = types.ModuleType('package'); package.__path__ = ['modeling_embinv']; "
        "sys.modules['package'] = package; import package.cli.options; "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_feedback_by_name():
    """Four places each had an idea of their own of what "none" and a misspelt name are."""
    encode, loaded = len, []
    found = [feedback_by_name(name, lambda: loaded.append(1) or encode) for name in (None, "none", "surrogate")]
    assert found == [None, None, "surrogate"] and not loaded
    assert feedback_by_name("encoder", lambda: encode) is encode
    with pytest.raises(EmbInvError, match="feedback must be one of none, surrogate, encoder, got 'oracle'"):
        feedback_by_name("oracle", lambda: encode)
    assert feedback_of("surrogate", None, None) == "surrogate" and feedback_of(None, None, None) is None


def test_the_reference_page_is_up_to_date():
    """A page that was written once describes the settings of that day; `make settings` writes it anew."""
    made = runpy.run_path(str(ROOT / "docs" / "_build" / "settings_page.py"))
    assert made["PATH"].read_text(encoding="utf-8") == made["page"]()
    assert all(f"| `{name}` |" in made["page"]() for name in (*SETTINGS, "feedback"))


OF_WEIGHTS = {"calibration": {"open_loop": {"bias": -1.5}}, "suppress_tokens": [4, 5], "search": {"stop_cosine": 0.9}}


@pytest.fixture
def tuned(tmp_path):
    """A folder whose checkpoint has settings that were found for its weights, and its model."""
    model = tiny_model(surrogate_rank=2)
    model.generation_config = EmbInvGenerationConfig(**OF_WEIGHTS, num_steps=3)
    model.save_pretrained(tmp_path / "own")
    return tmp_path / "own", model


def of_weights(config) -> tuple:
    return config.calibration, config.suppress_tokens, config.stop_cosine


def test_a_configuration_at_loading_keeps_what_belongs_to_the_weights(tuned, tmp_path):
    """`from_pretrained(…, generation_config=GC(num_steps=16))` lost the calibration, and saving lost it for good."""
    folder, model = tuned
    load = EmbInvForMaskedDiffusion.from_pretrained
    loaded = load(folder, generation_config=EmbInvGenerationConfig(num_steps=16))
    assert loaded.generation_config.num_steps == 16
    assert of_weights(loaded.generation_config) == of_weights(model.generation_config)
    loaded.save_pretrained(tmp_path / "again")
    assert of_weights(load(tmp_path / "again").generation_config) == of_weights(model.generation_config)
    plain = load(folder, generation_config=EmbInvGenerationConfig())  # other settings are the object's alone
    assert plain.generation_config.num_steps == EmbInvGenerationConfig().num_steps
    none = EmbInvGenerationConfig(calibration={}, suppress_tokens=[], stop_cosine=0.5)
    assert of_weights(load(folder, generation_config=none).generation_config) == ({}, [], 0.5)
    with pytest.raises(EmbInvError, match="generation_config must be an EmbInvGenerationConfig, got"):
        load(folder, generation_config={"num_steps": 3})
    (folder / "generation_config.json").unlink()
    assert of_weights(load(folder, generation_config=EmbInvGenerationConfig()).generation_config) == (None,) * 3


def test_a_configuration_of_a_call_keeps_what_belongs_to_the_weights(tuned):
    """`generate(V, GC(num_steps=2))` gave raw probabilities as confidences, and wrote suppressed tokens."""
    model = tuned[1]
    expected = model.generate(unit_vectors(2), num_steps=2)
    given = model.generate(unit_vectors(2), EmbInvGenerationConfig(num_steps=2))
    assert torch.equal(given.sequences, expected.sequences) and torch.equal(given.confidence, expected.confidence)
    settings = model.generation_settings(EmbInvGenerationConfig(num_candidates=2), {})
    assert of_weights(settings) == of_weights(model.generation_config) and settings.num_candidates == 2
    none = {"calibration": None, "suppress_tokens": None}  # a keyword means what it says
    assert of_weights(model.generation_settings(EmbInvGenerationConfig(), none)) == (None, None, 0.9)
    empty = EmbInvGenerationConfig(calibration={}, suppress_tokens=[])
    assert of_weights(model.generation_settings(empty, {})) == ({}, [], 0.9)
    raw = model.generate(unit_vectors(2), num_steps=2, calibration=None).confidence
    assert torch.equal(model.generate(unit_vectors(2), empty, num_steps=2, suppress_tokens=[4, 5]).confidence, raw)
    assert not torch.equal(raw, expected.confidence)
