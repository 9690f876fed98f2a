"""Completion in the shell, asked for as bash asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def proposed(line: str, folder: Path) -> list[str]:
    """What the shell is offered at the end of a command line that is typed in a folder."""
    asked = {
        "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "proposed"),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "modeling_embinv.cli.main"]
    done = subprocess.run(command, cwd=folder, env=os.environ | asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    return (folder / "proposed").read_text().split()


@pytest.mark.parametrize(
    "line, words",
    [
        ("embinv inv", {"invert"}),
        ("embinv invert --pres", {"--preset"}),
        ("embinv invert --preset ", {"quick", "standard", "thorough"}),
        ("embinv invert --preset th", {"thorough"}),
        ("embinv demo --feedback enc", {"encoder"}),
        ("embinv invert --strategy au", {"autoregressive"}),
        ("embinv evaluate --strategy au", {"autoregressive"}),
        ("embinv invert --num-steps ", set()),
        ("embinv invert vec", {"vectors.npy"}),
        ("embinv train --max-st", {"--max-steps"}),
        ("embinv train mi", {"mine.yaml"}),
    ],
)
def test_the_shell_is_offered_what_fits(line, words, tmp_path):
    """Catches files offered where only a few words are allowed, and `train`, whose flags were not offered at all."""
    for name in ("vectors.npy", "mine.yaml"):
        (tmp_path / name).touch()
    assert set(proposed(line, tmp_path)) == words
