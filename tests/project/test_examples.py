"""The examples, run as their first lines say."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def vectors(encoder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, encoder.encode(["we will meet at the station.", "the dog slept."]).numpy())
    return path


def test_vectors_are_inverted(vectors):
    """An example that names an old argument is a user's first error."""
    lines = run(sys.executable, "examples/invert_vectors.py", str(vectors)).splitlines()
    assert len(lines) == 2 and "meet" in lines[0] and "dog" in lines[1]


def test_drafts_are_shown():
    """Every pass has a line, and the last line no mask."""
    lines = run(sys.executable, "examples/watch_denoising.py", "The dog slept.").splitlines()
    assert lines[0].startswith("1 ") and "▒" in lines[0] and "▒" not in lines[-1] and "dog" in lines[-1]


def test_gaps_are_filled_and_the_rest_stays(vectors, tmp_path):
    """Known words that the model may overwrite would make the example a lie."""
    np.save(tmp_path / "one.npy", np.load(vectors)[0])
    script = (sys.executable, "examples/fill_gaps.py")
    assert run(*script, "we will [MASK] at the [MASK].", str(tmp_path / "one.npy")).split() == [
        "we", "will", "meet", "at", "the", "station."
    ]  # fmt: skip


def test_fine_tuning_runs_to_its_second_table(tmp_path):
    """Flags of the script and of the commands that it calls drift apart unseen."""
    texts = tmp_path / "texts.txt"
    names = ("valve", "pump", "filter", "gasket", "sensor", "relay", "motor", "fan", "hose", "lamp", "belt", "gear")
    texts.write_text(
        "".join(f"Replace the {a} before you test the {b} again.\n" for a in names for b in names if a != b)
    )
    shown = run("bash", "examples/finetune.sh", str(texts), str(tmp_path / "out"), UPDATES="2", SHARE="0.3")
    assert shown.count("nearest training text") == 2 and (tmp_path / "out" / "best" / "config.json").exists()
