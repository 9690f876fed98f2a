"""The launch files: they parse, and they name classes that exist; how many processes a launch has started."""

import os
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.training.assemble import train
from tests.tiny_models import tiny_model
from tests.training.tiny_runs import settings

CONFIGS = sorted((Path(__file__).parents[2] / "accelerate_configs").glob("*.yaml"))


def test_all_five_are_there():
    """README names them."""
    assert {path.stem for path in CONFIGS} == {"cpu", "single_gpu", "multi_gpu", "fsdp2", "deepspeed_zero2"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_it(path):
    """Accelerate refuses unknown keys, at launch time, on the user's machine."""
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1 and config.mixed_precision in ("no", "bf16")


def test_fsdp_wraps_a_layer_that_exists():
    """A misspelt layer class shards nothing, without a word."""
    path = next(path for path in CONFIGS if path.stem == "fsdp2")
    settings = yaml.safe_load(path.read_text())["fsdp_config"]
    assert settings["fsdp_version"] == 2
    model = tiny_model("modernbert")
    assert {settings["fsdp_transformer_layer_cls_to_wrap"]} == set(model._no_split_modules)
    assert {type(layer).__name__ for layer in model.trunk.layers} == set(model._no_split_modules)
    assert set(tiny_model("xlm-roberta")._no_split_modules) == {"AdaptiveBertLayer"}


@pytest.mark.parametrize("processes", [1, 2])
def test_more_processes_than_a_launch_starts_are_told(pairs, tmp_path, monkeypatch, caplog, processes):
    """`accelerate launch --num_processes 2` starts one process on a CPU, and the run was of half the batch, unsaid."""
    flags = ["--config_file", str(Path(CONFIGS[0].parent, "cpu.yaml")), "--num_processes", str(processes)]
    launch, *_ = _validate_launch_command(launch_command_parser().parse_args([*flags, "train.py"]))
    _, environment = prepare_simple_launcher_cmd_env(launch)
    for name in environment.keys() - os.environ.keys():
        monkeypatch.setenv(name, environment[name])
    train(settings(pairs, tmp_path, max_steps=1, generation_size=0))
    told = [record.getMessage() for record in caplog.records if "torchrun" in record.getMessage()]
    assert len(told) == processes - 1
    if told:
        assert "starts one process on a CPU" in told[0] and "\n" not in told[0]


def test_a_process_that_believes_it_is_alone_stops(pairs, tmp_path, monkeypatch):
    """Two processes that do not know of each other wrote to one folder: the second said only that the first was there.

    The device stands for one of a kind that accelerate starts no group of processes for.
    """
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EmbInvError, match="2 processes, .* ACCELERATE_USE_CPU=true") as caught:
        train(settings(pairs, tmp_path, max_steps=1, generation_size=0))
    assert "\n" not in str(caught.value) and not any(tmp_path.glob("step-*"))
