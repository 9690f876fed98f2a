"""The built package, installed away from the project: what people get with pip."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh_process import COMMAND

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "checkpoints" / "embinv-minilm"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's files, and nothing of the project around it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "modeling_embinv", source / "modeling_embinv", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(wheel, check=True, capture_output=True, timeout=600)
    (built,) = folder.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(built)]
    subprocess.run(install, check=True, capture_output=True, timeout=600)
    return folder / "site"


RUN = """
import contextlib, io, json, sys
import modeling_embinv
from modeling_embinv.cli.main import main
results = [modeling_embinv.__file__]
for command in json.loads(sys.argv[1]):
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = main(command)
    results.append([code, printed.getvalue(), said.getvalue()])
print(json.dumps(results))
"""


def python(installed: Path, cwd: Path, *arguments: str) -> str:
    """What a Python prints that finds the installed package, and nothing of the project."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_commands_work_away_from_the_project(installed, tmp_path):
    """Encoder YAMLs and the checkpoint were looked for beside the package.

    `demo` and `prepare` failed for everybody who had installed it. One process runs all commands, for the imports take
    longest.
    """
    (tmp_path / "texts.txt").write_text("The king is dead.\nLong live the king.\n")
    sentence = "We met Anna."  # a short one, and no search, for both have tests of their own
    commands = [
        ["demo", sentence, "--preset", "quick", "--model", str(CHECKPOINT)],
        ["prepare", "texts.txt", "--out", "pairs", "--length", "8"],
        ["prepare", "texts.txt", "--out", "pairs", "--encoder", "minilmm"],
        ["demo", sentence],
    ]
    where, demo, prepare, misspelt, without = json.loads(python(installed, tmp_path, "-c", RUN, json.dumps(commands)))
    assert where.startswith(str(installed))
    assert demo[0] == 0 and "recovered" in demo[1], demo
    assert prepare[0] == 0, prepare
    assert misspelt[0] == 2 and "minilmm" in misspelt[2]
    assert without[0] == 2 and "embinv/embinv-minilm" in without[2]


@pytest.mark.slow
def test_the_command_is_installed(installed, tmp_path):
    """An entry point that names no function is found by whoever types `embinv`."""
    assert python(installed, tmp_path, str(installed / "bin" / "embinv"), "--version").split()[0] == "embinv"
    assert "usage: embinv" in python(installed, tmp_path, "-m", "modeling_embinv.cli", "--help")


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_told_in_one_line(fresh, tmp_path):
    """The library that speaks to the Hub changed with its version, and so did its errors: a traceback."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = fresh.run(COMMAND, "invert", "[0.1, 0.2]", "--model", "nosuch/model", cwd=ROOT, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "nosuch/model is not a folder here, and the Hub cannot be reached" in done.stderr
