"""Everything that a model does, on an accelerator: what is made beside it lies there, too."""

import json
from pathlib import Path

import pytest

from tests.shipped.calls_on_accelerator import CALLS

ROOT = Path(__file__).parents[2]
CODE = "import json, sys\nfrom tests.shipped.calls_on_accelerator import main\njson.dump(main(), sys.stdout)"


@pytest.fixture(scope="module")
def wrong(fresh) -> dict[str, str]:
    """What went wrong, by call: a process has the pretended accelerator for good, so it is not this one."""
    done = fresh.run(CODE, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", CALLS)
def test_it_gives_what_the_cpu_gives(wrong, call):
    """A tensor that is made where nobody said: "Expected all tensors to be on the same device", on a GPU alone."""
    assert wrong[call] == ""
