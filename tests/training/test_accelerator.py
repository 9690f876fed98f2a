"""Training on an accelerator: batches, validation and the encoder's vectors meet on one device."""

import json
from pathlib import Path

import pytest

from tests.training.runs_on_accelerator import RUNS, STEPS

ROOT = Path(__file__).parents[2]
CODE = "import json, sys\nfrom tests.training.runs_on_accelerator import main\nprint(json.dumps(main(*sys.argv[1:])))"


@pytest.fixture(scope="module")
def scores(fresh, pairs, tmp_path_factory) -> dict[str, dict[str, float] | str]:
    """By run; a process has the pretended accelerator for good, so it is not this one."""
    done = fresh.run(CODE, str(pairs), str(tmp_path_factory.mktemp("runs")), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("run", RUNS)
def test_it_trains_to_its_scores(scores, run):
    """On a GPU, runs on texts, and those of a surrogate, ended in their first validation: "on the same device"."""
    assert isinstance(scores[run], dict), scores[run]
    assert scores[run]["step"] == STEPS and scores[run]["validation/loss"] > 0
