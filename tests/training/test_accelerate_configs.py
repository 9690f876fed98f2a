"""The launch files: they parse, and they name classes that exist."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.tiny_models import tiny_model

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
