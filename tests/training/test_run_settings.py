"""The settings that a run keeps in its folder, what is said when others are given, and flags over a recipe's own."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modeling_embinv.data.prepare import prepare
from modeling_embinv.data.sources import Document
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.training.arguments import parse_training_config
from modeling_embinv.training.assemble import train
from tests.training.tiny_runs import SENTENCES, killed_at, log, settings

ROOT = Path(__file__).parents[2]


def kept(folder: Path) -> dict:
    return yaml.safe_load((folder / "settings.yaml").read_text())


@pytest.fixture(scope="module")
def finished(pairs, tmp_path_factory) -> Path:
    """The folder of a run that has done its three updates."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    train(settings(pairs, folder, max_steps=3, generation_size=0))
    return folder


def other(folder: Path, name: str, pairs: Path, finished: Path) -> str:
    """Another value of a setting that a finished run must not be given."""
    return str(shutil.copytree({"pairs": pairs, "init_from": finished / "last"}[name], folder / name))


@pytest.mark.parametrize("name", ["pairs", "init_from"])
def test_a_finished_run_with_other_data_is_refused(pairs, finished, tmp_path, capsys, name):
    """It ended in success, with the model of the data before; that "best is chosen anew" was said besides."""
    out, value = shutil.copytree(finished, tmp_path / "out"), other(tmp_path, name, pairs, finished)
    flags = dict(max_steps=3, generation_size=0, learning_rate=1e-4, **{name: value})
    if name == "init_from":
        flags["backbone_config"] = None
    capsys.readouterr()
    with pytest.raises(EmbInvError) as error:
        train(settings(pairs, out, **flags))
    line = str(error.value)
    assert f"the run in {out} is finished at step 3" in line and f"{name} was " in line and f"now {value}" in line
    assert "another output_dir" in line and "max_steps" in line and "\n" not in line
    assert "best is chosen anew" not in (said := capsys.readouterr().out) and "continuing" not in said


def test_a_finished_run_names_a_folder_by_any_path(pairs, finished, capsys, monkeypatch):
    """The same pairs, written from another folder, are no other pairs."""
    monkeypatch.chdir(pairs.parent)
    capsys.readouterr()
    train(settings(Path(pairs.name), finished, max_steps=3, generation_size=0))
    assert "finished at step 3" in (said := capsys.readouterr().out) and "differ from before" not in said


def test_a_finished_run_names_a_rate_that_came_too_late(pairs, finished, capsys):
    """Whoever had changed the rate of a finished run took it for the rate of the model there."""
    capsys.readouterr()
    train(settings(pairs, finished, max_steps=3, generation_size=0, learning_rate=1e-4))
    said = capsys.readouterr().out
    assert "learning_rate was 0.001, now 0.0001" in said and "finished at step 3" in said
    assert kept(finished)["learning_rate"] == 1e-3


def test_what_is_other_than_before_is_named_where_a_run_goes_on(pairs, finished, tmp_path, capsys):
    """A rate or a batch of another size, given by mistake, went into the second half of a run unseen."""
    out = shutil.copytree(finished, tmp_path / "out")
    capsys.readouterr()
    train(settings(pairs, out, max_steps=4, generation_size=0, learning_rate=1e-4))
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "differ from before" in line]
    assert line.startswith("settings that differ from before: ")
    assert set(line.split(": ", 1)[1].split("; ")) == {
        "learning_rate was 0.001, now 0.0001", "max_steps was 3, now 4",
    }  # fmt: skip
    assert kept(out)["learning_rate"] == 1e-4 and kept(finished)["learning_rate"] == 1e-3


def test_the_kept_settings_are_a_recipe(pairs, finished, tmp_path):
    """What a run was made with could not be read anywhere, nor given to train.py again."""
    again = parse_training_config([str(finished / "settings.yaml"), "--output-dir", str(tmp_path)])
    assert again == settings(pairs, tmp_path, max_steps=3, generation_size=0, causal_share=0.0, correction_share=0.0)


@pytest.mark.parametrize("content", [None, "a: [", "- 1\n"], ids=["older version", "damaged", "a list"])
def test_a_run_without_its_settings_goes_on(pairs, finished, tmp_path, content, capsys):
    """A run that an older version began must not end for want of a file that it never had."""
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "settings.yaml").unlink()
    if content is not None:
        (out / "settings.yaml").write_text(content)
    capsys.readouterr()
    train(settings(pairs, out, max_steps=4, generation_size=0))
    assert "differ from before" not in capsys.readouterr().out and kept(out)["max_steps"] == 4


def test_a_run_that_starts_over_keeps_the_old_settings_until_it_saves(pairs, finished, tmp_path):
    """The old run, which can still be resumed then, would go on under the new one's settings."""
    out = shutil.copytree(finished, tmp_path / "out")
    fresh = settings(pairs, out, max_steps=2, generation_size=0, resume=False)
    with killed_at(1):
        train(fresh)
    assert kept(out)["max_steps"] == 3
    train(fresh)
    assert kept(out)["max_steps"] == 2


@pytest.mark.parametrize(
    "recipe, flags, given, gone",
    [
        ("minilm_32", ["--pairs", "data/mine"], {"pairs": "data/mine"}, ["texts"]),
        ("minilm_cpu", ["--texts", "a.txt"], {"texts": ["a.txt"]}, ["pairs"]),
        ("minilm_cpu", ["--init-from", "runs/a/best"], {"init_from": "runs/a/best"}, ["backbone"]),
        ("minilm_cpu_32", ["--backbone", "encoder"], {"backbone": "encoder"}, ["init_from"]),
        ("minilm_cpu", ["--backbone-config", "{}"], {"backbone_config": "{}"}, ["backbone"]),
    ],
)
def test_a_flag_replaces_a_recipes_source_and_trunk(recipe, flags, given, gone):
    """Flags override the file, say the docs; `--pairs` beside a recipe's texts was an error that named both."""
    config = parse_training_config([str(ROOT / "configs" / f"{recipe}.yaml"), *flags])
    assert {name: getattr(config, name) for name in given} == given
    assert all(getattr(config, name) is None for name in gone)
    assert config.batch_size == parse_training_config([str(ROOT / "configs" / f"{recipe}.yaml")]).batch_size


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--pairs", "a", "--texts", "b"], "give either pairs .* or texts"),
        (["--backbone", "encoder", "--init-from", "a"], "exactly one of backbone, backbone_config and init_from"),
    ],
)
def test_two_flags_of_which_a_run_has_one_are_refused(flags, message):
    """One of them would go in silence."""
    with pytest.raises(EmbInvError, match=message):
        parse_training_config([str(ROOT / "configs" / "minilm_cpu.yaml"), *flags])


def test_a_trained_inverter_is_not_warmed_up_by_a_recipe_for_new_ones(tmp_path):
    """Its projector would learn anew, without the trunk, what it knows far better."""
    recipe = str(ROOT / "configs" / "minilm_cpu.yaml")
    assert parse_training_config([recipe]).bag_of_words_steps == 300
    assert parse_training_config([recipe, "--init-from", "a"]).bag_of_words_steps == 0
    flags = ["--init-from", "a", "--bag-of-words-steps", "5"]
    assert parse_training_config([recipe, *flags]).bag_of_words_steps == 5  # whoever asks for it


def steps_in(folder: Path) -> list[int]:
    """The updates whose loss tensorboard shows."""
    events = EventAccumulator(str(folder / "embinv"))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def test_tensorboard_stands_beside_the_log_and_shows_no_update_twice(pairs, tmp_path):
    """`--trackers tensorboard` took log.jsonl away, and updates after a kill were in tensorboard twice."""
    flags = dict(generation_size=0, trackers=["tensorboard"])
    with killed_at(5):
        train(settings(pairs, tmp_path, **flags))
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5]
    train(settings(pairs, tmp_path, **flags))
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    train(settings(pairs, tmp_path, **flags, resume=False, max_steps=3))  # started over
    assert steps_in(tmp_path) == [1, 2, 3]


def test_another_encoders_vectors_under_the_checkpoints_name_are_told(pairs, encoder, tmp_path, caplog):
    """An inverter learned an API's vectors, was called MiniLM's in its config, and nobody was told."""
    caplog.set_level(logging.WARNING)
    texts = [f"{line} It was {day}." for line in SENTENCES for day in range(40)]
    own = encoder.encode(texts).numpy()
    folders, flags = {}, dict(max_steps=1, validation_size=150, generation_size=0, canvas_lengths=None)
    for name, vectors in (("own", own), ("rolled", np.roll(own, 7, axis=1))):
        documents = map(Document, texts, texts, vectors)
        folders[name] = tmp_path / name
        prepare(documents, encoder, folders[name], length=16, validation_share=0.5, show_progress=False)
    start = train(settings(folders["own"], tmp_path / "start", **flags))
    tuning = dict(init_from=str(start), backbone_config=None, **flags)
    for name, warns in (("own", False), ("rolled", True)):
        caplog.clear()
        train(settings(folders[name], tmp_path / f"tuned-{name}", **tuning))
        told = [record.getMessage() for record in caplog.records if "no vectors of" in record.getMessage()]
        assert len(told) == warns, told
    assert "all-MiniLM-L6-v2" in told[0] and "another encoder" in told[0] and "--encoder" in told[0]
