"""How many tokens a run reads and writes: those of the inverter that it starts from, unless it is told."""

import json
import logging

import pytest

from modeling_embinv.data.batches import PairBatches
from modeling_embinv.data.pairs import load_pairs
from modeling_embinv.data.sources import read_texts, split_of
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.runtime import process_state
from modeling_embinv.training.arguments import parse_training_config
from modeling_embinv.training.assemble import train
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.run_data import build_data
from modeling_embinv.training.run_model import build_model
from tests.training.tiny_runs import settings

LINES = [f"The red cart of farm {i} rolled down the long hill to the old mill with {i * 5} sacks." for i in range(200)]


@pytest.fixture(scope="module")
def long(pairs, tmp_path_factory):
    """A tiny inverter of 38 tokens, beyond the 32 of its encoder's YAML, and the settings of texts to tune it on."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "texts.txt").write_text("\n".join(LINES))
    texts = dict(pairs=None, texts=[str(folder / "texts.txt")], canvas_lengths=None, generation_size=0, max_steps=1)
    start = train(settings(pairs, folder / "start", max_sequence_length=38, **texts))
    return dict(init_from=str(start), backbone_config=None, max_sequence_length=None, **texts)


def canvas_of(folder) -> int:
    return json.loads((folder / "config.json").read_text())["max_sequence_length"]


@pytest.mark.parametrize("flags", [{}, {"surrogate_rank": 4}, {"canvas_lengths": [16, 38]}], ids=str)
def test_a_longer_inverter_keeps_its_canvas(long, pairs, tmp_path, flags):
    """A fine-tuning without the flag shrank it to 32 tokens; with it, the encoder's YAML forbade the canvas."""
    assert canvas_of(train(settings(pairs, tmp_path, **long | flags))) == 38


def test_a_canvas_that_is_given_holds(long, pairs, tmp_path):
    """A checkpoint's canvas that wins over the flag, or over 32 in a YAML of before, could not be shortened."""
    assert canvas_of(train(settings(pairs, tmp_path, **long | {"max_sequence_length": 32}))) == 32
    with pytest.raises(EmbInvError, match="canvas_lengths must have max_sequence_length, 38, for the longest"):
        train(settings(pairs, tmp_path / "no", **long | {"canvas_lengths": [16, 32]}))


def test_a_new_inverter_has_32_tokens():
    """The default of a new model must not go with that of fine-tuning."""
    usual = ["--output-dir", "x", "--encoder", "minilm", "--pairs", "p"]
    assert parse_training_config([*usual, "--backbone", "encoder"]).max_sequence_length == 32
    assert parse_training_config([*usual, "--init-from", "x"]).max_sequence_length is None


def test_the_encoder_reads_no_more_than_it_can(long, pairs, tmp_path):
    """A canvas beyond the encoder's own limit would be trained on vectors of cut texts."""
    with pytest.raises(EmbInvError, match="reads at most 256 tokens.*at most 254, not 255"):
        train(settings(pairs, tmp_path, **long | {"max_sequence_length": 255}))


def test_pairs_of_another_length_are_told_with_what_to_do(long, pairs, tmp_path):
    """Pairs of 16 tokens cannot fill a canvas of 38: the line must name both ways out."""
    with pytest.raises(EmbInvError, match=r"length 16, this run wants 38.*--length 38.*max_sequence_length to 16"):
        train(settings(pairs, tmp_path, **long | {"texts": None, "pairs": str(pairs)}))


def test_pairs_that_do_not_fit_are_counted(pairs, tmp_path, caplog):
    """Longer pairs were left out without a word: a model that is trained on the short half looked like any."""
    caplog.set_level(logging.WARNING)
    needed = PairBatches(load_pairs(pairs, "train"), end=102, seed=0).needed
    flags = dict(max_sequence_length=8, canvas_lengths=None, max_steps=1, generation_size=0)
    train(settings(pairs, tmp_path / "short", **flags))
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 1 and f"{int((needed > 8).sum())} of {len(needed)} training pairs are left out" in told[0]
    caplog.clear()
    train(settings(pairs, tmp_path / "all", max_steps=1, generation_size=0))
    assert not any("left out" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_few_held_out_texts_are_told(pairs, encoder, tmp_path, caplog, kind):
    """512 texts were drawn from the four lines that were held out of a small file, and `best` was chosen by them."""
    caplog.set_level(logging.WARNING)
    process_state()  # as a run has
    (tmp_path / "texts.txt").write_text("\n".join(f"It was day {day} of the long journey." for day in range(400)))
    data = {} if kind == "pairs" else dict(pairs=None, texts=[str(tmp_path / "texts.txt")], canvas_lengths=None)
    told = []
    for size in (512, 2):  # whoever asks for two texts knows it
        model, _ = build_model(config := settings(pairs, tmp_path, validation_size=size, **data), encoder)
        build_data(config.with_shares_of(model.config), encoder, model)
        told.append([record.getMessage() for record in caplog.records if "too few to" in record.getMessage()])
        caplog.clear()
    (line,), nothing = told
    assert nothing == [] and "\n" not in line
    if kind == "pairs":
        assert f"validation has {len(load_pairs(pairs, 'validation'))} texts, too few" in line
    else:
        documents = read_texts([str(tmp_path / "texts.txt")])
        count = sum(split_of(document.key, 0.01) == "validation" for document in documents)
        assert f"validation draws 512 texts from {count} held-out ones, too few" in line


def test_a_runs_folder_is_no_inverter(long, pairs, tmp_path):
    """Its line was "not whole; download it again": a run's inverters lie one level deeper, in `best` and `last`."""
    run = str(long["init_from"]).removesuffix("/last")
    with pytest.raises(EmbInvError, match=rf"{run} is the folder of a run: give {run}/best or {run}/last\.$"):
        train(settings(pairs, tmp_path, **long | {"init_from": run}))


def test_a_table_needs_its_surrogate():
    """`surrogate_table` without a rank trained the trunk, and dropped the surrogate that was to get a table."""
    with pytest.raises(EmbInvError, match="surrogate_table .*set surrogate_rank above 0"):
        TrainingConfig(output_dir="x", encoder="minilm", pairs="p", init_from="y", surrogate_table=True)


def test_settings_of_what_is_not_there_are_named(pairs, tmp_path, caplog):
    """Whoever set a share of whole texts beside prepared pairs, or texts of a word head, saw them change nothing."""
    caplog.set_level(logging.WARNING)
    train(settings(pairs, tmp_path, max_steps=1, generation_size=0, whole_share=0.9, word_texts=64))
    told = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
    assert len(told) == 2 and "whole_share is ignored" in told[0] and "word_texts is ignored" in told[1]
    caplog.clear()
    train(settings(pairs, tmp_path / "plain", max_steps=1, generation_size=0))
    assert not any("is ignored" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "arguments",
    [["--resume", "false"], ["--resume=False"], ["run.yaml", "--no-resume", "true"], ["--complementary_masks", "1"]],
    ids=str,
)
def test_a_flag_that_is_on_or_off_takes_no_value(arguments):
    """`--resume false` was "cannot read false: No such file", the name of a YAML."""
    with pytest.raises(EmbInvError, match=r"takes no value: write (--\S+) or --no-\S+, not") as error:
        parse_training_config(arguments)
    assert "\n" not in str(error.value)
