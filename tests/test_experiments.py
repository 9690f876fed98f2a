"""The experiments' files: what their tables need before hours of training are spent on them."""

import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments"
sys.path.insert(0, str(FOLDER))

EXPERIMENTS = [path for path in sorted(FOLDER.glob("*.yaml")) if "variants" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("scale", ["reduced", "full"])
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_variant_is_a_training_run_of_its_own(path, scale):
    """A misspelt flag would be found only after the variants before it were trained; a flag that reaches no setting
    would train one variant twice."""
    from run import variant_config

    experiment = yaml.safe_load(path.read_text())
    configs = [vars(variant_config(experiment, variant, scale, "out")) for variant in experiment["variants"]]
    assert len(configs) > 2 and all(
        first != second for place, first in enumerate(configs) for second in configs[:place]
    )
