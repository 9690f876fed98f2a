"""The examples, run as their first lines say."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.tiny_folder import new_tiny_inverter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script of the examples as `python` does, in the project's folder, and gives what it prints."""
    monkeypatch.chdir(ROOT)

    def run_script(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capsys.readouterr()
        runpy.run_path(f"examples/{name}", run_name="__main__")
        return capsys.readouterr().out

    return run_script


@pytest.fixture(scope="module")
def vectors(encoder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, encoder.encode(["we will meet at the station.", "the dog slept."]).numpy())
    return path


def test_vectors_are_inverted(run, vectors):
    """An example that names an old argument is a user's first error."""
    lines = run("invert_vectors.py", str(vectors)).splitlines()
    assert len(lines) == 2 and "meet" in lines[0] and "dog" in lines[1]


def test_drafts_are_shown(run):
    """Every pass has a line, and the last line no mask."""
    lines = run("watch_denoising.py", "The dog slept.").splitlines()
    assert lines[0].startswith("1 ") and "▒" in lines[0] and "▒" not in lines[-1] and "dog" in lines[-1]


def test_gaps_are_filled_and_the_rest_stays(run):
    """Known words that the model may overwrite would make the example a lie; so would a filling without its proof."""
    redacted, filled, gap = run("fill_gaps.py", "We will meet at the station.", "station").splitlines()
    assert redacted == "We will meet at the ▇▇▇."
    assert filled.startswith("We will meet at the station.  cosine 1.0") and filled.endswith("verified")
    assert gap.startswith("  station ") and "; else " in gap


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.[ps][yh]")))
def test_without_arguments_an_example_says_how_it_is_used(name):
    """An IndexError behind seconds of loading, or bash's word for an unset variable."""
    command = [sys.executable if name.endswith(".py") else "bash", f"examples/{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and done.stdout == "" and name in done.stderr and len(done.stderr) < 600


@pytest.fixture(scope="module")
def released(encoder, tmp_path_factory) -> Path:
    """A tiny inverter of all-MiniLM-L6-v2 with what the released one has: a surrogate and a calibration."""
    model = new_tiny_inverter(
        encoder.tokenizer, embedding_dim=384, max_sequence_length=32, surrogate_rank=4,
        encoder_id="sentence-transformers/all-MiniLM-L6-v2",
    )  # fmt: skip
    model.generation_config.calibration = {"open_loop": {"bias": -1.7}}
    return export(model, prepare_tokenizer(encoder.tokenizer), tmp_path_factory.mktemp("released") / "model")


@pytest.mark.slow
def test_fine_tuning_runs_to_its_second_table(released, tmp_path):
    """Flags of the script and of the commands that it calls drift apart unseen."""
    texts = tmp_path / "texts.txt"
    names = ("valve", "pump", "filter", "gasket", "sensor", "relay", "motor", "fan", "hose", "lamp", "belt", "gear")
    texts.write_text(
        "".join(f"Replace the {a} before you test the {b} again.\n" for a in names for b in names if a != b)
    )
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "UPDATES": "2",
        "SHARE": "0.1", "MODEL": str(released),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "examples/finetune.sh", str(texts), str(tmp_path / "out")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("nearest training text") == 2
    assert (tmp_path / "out" / "best" / "config.json").exists()
