"""The examples, run as their first lines say."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modeling_embinv.cli.main import main
from modeling_embinv.presets_embinv import PRESETS
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


@pytest.mark.parametrize("name", ["invert_vectors.py", "invert_with_ray.py"])
def test_mistakes_are_told_before_anything_is_loaded(name, tmp_path):
    """An unknown preset and a missing file ended in tracebacks, the first after the model was loaded."""
    missing, out = str(tmp_path / "missing.npy"), [str(tmp_path / "out")] * (name == "invert_with_ray.py")
    mistakes = {"invalid choice: 'fast'": [__file__, *out, "--preset", "fast"], f": {missing}\n": [missing, *out]}
    for message, arguments in mistakes.items():
        command = [sys.executable, "-S", f"examples/{name}", *arguments]  # -S leaves out all that is installed
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    for preset in PRESETS:  # a list of its own that has fallen behind
        done = subprocess.run([*command, "--preset", preset], cwd=ROOT, capture_output=True, text=True)
        assert missing in done.stderr and "invalid" not in done.stderr


def test_a_file_that_holds_no_vectors_is_told(run, tmp_path):
    """numpy's own advice is to allow pickles, which may run code."""
    path = tmp_path / "vectors.npy"
    for content in ("no array", ""):
        path.write_text(content)
        with pytest.raises(SystemExit, match="is no .npy file of numbers"):
            run("invert_vectors.py", str(path), "--model", "nowhere")


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


def test_a_word_to_hide_is_a_whole_one():
    """The "at" of "station" was hidden, too, and a word that is not there ended in a traceback."""
    whole = runpy.run_path(str(ROOT / "examples" / "fill_gaps.py"))["whole"]
    assert re.sub(whole("at"), "▇▇▇", "We meet at the station.") == "We meet ▇▇▇ the station."
    command = [sys.executable, "-S", "examples/fill_gaps.py", "We meet at the station.", "nothere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith("'nothere' is not a word of the sentence\n")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_without_arguments_an_example_says_how_it_is_used(name):
    """An IndexError, or the usage behind seconds of imports: -S leaves out all that is installed."""
    command = [sys.executable, "-S", f"examples/{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr) < 600
    assert done.stderr.startswith(f"usage: {name}")


def test_without_arguments_the_script_says_how_it_is_used():
    """bash's word for an unset variable."""
    done = subprocess.run(["bash", "examples/finetune.sh"], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr) < 600
    assert "usage: examples/finetune.sh" in done.stderr


@pytest.fixture(scope="module")
def released(encoder, tmp_path_factory) -> Path:
    """A tiny inverter of all-MiniLM-L6-v2 with what the released one has.

    That is both orders, a corrector, a surrogate, a calibration, and drafts as its own strategy.
    """
    model = new_tiny_inverter(
        encoder.tokenizer, embedding_dim=384, max_sequence_length=32, surrogate_rank=4,
        encoder_id="sentence-transformers/all-MiniLM-L6-v2", num_condition_tokens=4, causal_share=0.35,
        correction_share=0.3,
    )  # fmt: skip
    model.generation_config = model.generation_config.with_changes(strategy="autoregressive", num_draft_beams=4)
    model.generation_config.calibration = {"open_loop": {"bias": -1.7}}
    return export(model, prepare_tokenizer(encoder.tokenizer), tmp_path_factory.mktemp("released") / "model")


# what stands for a command of the script: it writes down its arguments, a line of JSON, and what became of the texts
RECORD = """#!{python} -S
import json, pathlib, sys
open({path!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "prepare":
    pairs = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    pairs.mkdir(parents=True)
    (pairs / "manifest.json").write_text(json.dumps({{"rows": {rows}}}))
"""


def run_finetune(tmp_path: Path, rows: dict[str, int], **variables: str) -> tuple[subprocess.CompletedProcess, list]:
    """finetune.sh beside recorders in place of its commands; its output, and what it called."""
    calls, programs = tmp_path / "calls.jsonl", tmp_path / "bin"
    programs.mkdir()
    for name in ("embinv", "accelerate"):
        (programs / name).write_text(RECORD.format(python=sys.executable, path=str(calls), rows=rows))
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    script = ["bash", "examples/finetune.sh", str(tmp_path / "texts.txt"), str(tmp_path / "out")]
    environment = {**os.environ, "PATH": path, **variables}
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    return done, list(map(json.loads, calls.read_text().splitlines()))


@pytest.mark.parametrize(
    "rows, variables, told",
    [
        (
            {"train": 29, "validation": 1, "test": 0},
            {},
            r"SHARE=0.1 held out too few texts \(validation: 1, test: 0\): .* raise SHARE",
        ),
        ({"train": 20, "validation": 5, "test": 5}, {"SHARE": "0.2"}, "20 texts are left .* fewer than BATCH=64"),
    ],
)
def test_too_few_texts_to_fine_tune_are_told_at_once(tmp_path, rows, variables, told):
    """Thirty texts ended in "no rows in split 'test'" or a batch of 64, and neither line named the variable to set."""
    done, calls = run_finetune(tmp_path, rows, **variables)
    assert done.returncode == 1 and [call[0] for call in calls] == ["prepare"]
    assert re.search(told, done.stderr) and done.stderr.count("\n") == 1


def test_the_batch_of_fine_tuning_can_be_set(tmp_path):
    """Twenty texts to train on make no batch of 64."""
    done, calls = run_finetune(tmp_path, {"train": 20, "validation": 5, "test": 5}, BATCH="8")
    assert done.returncode == 0, done.stderr
    launch = calls[2]
    assert launch[launch.index("--batch-size") + 1] == "8"


@pytest.mark.slow
def test_fine_tuning_runs_to_its_second_table(released, tmp_path, monkeypatch, capsys):
    """Flags of the script and of the commands that it calls drift apart unseen.

    This process runs them, as each one of its own would import the libraries again.
    """
    texts = tmp_path / "texts.txt"
    names = ("valve", "pump", "filter", "gasket", "sensor", "relay", "motor", "fan", "hose", "lamp", "belt", "gear")
    texts.write_text(
        "".join(f"Replace the {a} before you test the {b} again.\n" for a in names for b in names if a != b)
    )
    rows = {"train": 106, "validation": 13, "test": 13}
    done, calls = run_finetune(tmp_path, rows, UPDATES="2", SHARE="0.1", MODEL=str(released))
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(tmp_path / "out")  # of the recorders
    prepare, before, launch, calibrate, after = calls
    monkeypatch.chdir(ROOT)
    # the split that chose the best weights says too much good of them
    assert all(command[command.index("--split") + 1] == "test" for command in (before, after))
    assert launch[:2] == ["launch", "--config_file"] and Path(launch[2]).is_file() and launch[3] == "train.py"
    for command in (prepare, before, ["train", *launch[4:]]):
        assert main(command) == 0, command
    first = capsys.readouterr().out
    # the tiny inverter has no token right, and the script goes on
    assert main(calibrate) == 2 and "right and wrong tokens" in capsys.readouterr().err
    assert main(after) == 0
    for printed in (first, capsys.readouterr().out):
        assert printed.count("floor: nearest training") == 1  # a narrow column breaks its name
    assert (tmp_path / "out" / "best" / "config.json").exists()
