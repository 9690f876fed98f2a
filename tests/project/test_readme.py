"""The README's code and commands, and the checkpoint that it names."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_embinv.cli import demo
from modeling_embinv.cli.demo import DEMO_SENTENCES
from modeling_embinv.cli.main import main
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.evaluation import metrics
from modeling_embinv.loading import load_inverter

ROOT = Path(__file__).parents[2]


def test_readme_code_runs(encoder, monkeypatch):
    """The first thing a user pastes must run, with nothing but what is pasted; the encoder lies elsewhere here."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", {"all-MiniLM-L6-v2": encoder._model}.__getitem__)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    scope: dict = {}
    exec(code, scope)
    assert len(scope["texts"]) == 1 and "station" in scope["texts"][0]


def commands(text: str) -> list[list[str]]:
    """Every `embinv …` of a text, in a console block or in backticks, as arguments of the command line."""
    found = re.findall(r"^\$ (embinv .*)$|`(embinv [^`]+)`", re.sub(r"\\\n\s*", "", text), flags=re.M)
    return [shlex.split(block or inline)[1:] for block, inline in found]


@pytest.mark.slow
def test_readme_commands_run_as_printed(encoder, tmp_path, monkeypatch, capsys):
    """A flag that was renamed would stand in the README for good.

    All work on a few short sentences, as each takes seconds; `embinv audit` runs without the slower of its attackers.
    """
    monkeypatch.chdir(tmp_path)
    sentences = ("He slept.",)
    monkeypatch.setattr(demo, "DEMO_SENTENCES", sentences)
    vectors = encoder.encode(list(sentences)).numpy()
    np.save("vectors.npy", vectors)
    row = {"text": "The dog slept in front of the ▇▇▇.", "embedding": encoder.encode(DEMO_SENTENCES[:1])[0].tolist()}
    Path("redacted.jsonl").write_text(json.dumps(row), encoding="utf-8")
    Path("held_out.txt").write_text("He slept.\nThe dog slept.\n", encoding="utf-8")
    pq.write_table(pa.table({"embedding": vectors.tolist(), "text": sentences}), "dump.parquet")
    printed = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {command for command, *_ in printed} == {"demo", "invert", "fill", "evaluate", "audit"} and len(
        printed
    ) >= 5
    for command in printed:
        if command[0] == "audit":
            command = [*command, "--no-encoder"]
        if command != ["invert"]:
            assert main(command) == 0, command
        out = capsys.readouterr().out
        if "--feedback" in command:
            assert float(re.search(r"cosine ([\d.]+)", out)[1]) > 0.95
    assert len((tmp_path / "texts.jsonl").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "filled.jsonl").read_text())["gaps"][0]["text"] == "fire"
    assert json.loads((tmp_path / "report" / "report.json").read_text())["source"]["rows"] == 1


@pytest.mark.slow
def test_readme_training_command_runs_as_printed(tmp_path):
    """A recipe that lacks a setting, or a launcher that cannot find the package, ends a researcher's first try.

    What is appended makes the run small: one layer, two updates, no compilation.
    """
    (command,) = re.findall(r"`(accelerate launch [^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    small = (
        "--num-hidden-layers 1 --max-sequence-length 8 --batch-size 4 --max-steps 2 --warmup-steps 1 --log-steps 1 "
        "--bag-of-words-steps 1 --bag-of-words-batch-size 4 --validation-size 2 --generation-size 1 --no-compile"
    )
    for name in ("train.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my_texts.txt").write_text("".join(f"Here are {count} dogs.\n" for count in range(200)))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "HF_HOME": str(tmp_path / "home"),  # where a machine has its own settings of accelerate
    }  # fmt: skip
    done = subprocess.run(
        shlex.split(f"{command} {small}"), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "minilm_32"
    losses = [json.loads(line).get("train/loss") for line in (run / "log.jsonl").read_text().splitlines()]
    assert len([loss for loss in losses if loss]) == 2 and list((tmp_path / "data" / "tokens").iterdir())
    model, _ = load_inverter(run / "last")
    assert model.config.num_condition_tokens == 1 and model.config.noise_schedule == "linear"


def test_readme_names_files_and_targets_that_exist():
    """`make space` or a YAML that is gone would be the first thing that fails for a newcomer."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)`|^make ([a-z]+)$", text, flags=re.M))
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert len(targets) >= 4 and all(f"\n{first or second}: " in rules for first, second in targets)
    files = re.findall(r"[\w/.-]+\.(?:yaml|py)\b", text)
    assert files and all((ROOT / name).is_file() for name in files)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in project for extra in re.findall(r"embinv\[(\w+)\]", text))


def test_the_checkpoint_carries_the_package_code():
    """Hub users run the copy beside the weights: a fix that reaches only the package is none for them."""
    shipped = {path.name: path.read_bytes() for path in (ROOT / "modeling_embinv").glob("*_embinv.py")}
    copies = {path.name: path.read_bytes() for path in Path(CHECKPOINT).glob("*.py")}
    assert copies.keys() == shipped.keys()
    assert [name for name in copies if copies[name] != shipped[name]] == []


def test_the_shipped_checkpoint_reads_vectors(encoder):
    """A checkpoint of random or mismatched weights would still print fluent lines."""
    folder = Path(CHECKPOINT)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 64 * 2**20
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    model, tokenizer = load_inverter(folder)
    embeddings = encoder.encode(list(DEMO_SENTENCES))
    texts = tokenizer.batch_decode(model.generate(embeddings).sequences, skip_special_tokens=True)
    again = encoder.encode(texts)
    own = metrics.cosine(again, embeddings).mean()
    other = metrics.cosine(again, embeddings.roll(1, dims=0)).mean()
    assert own > other + 0.3
