"""The built package, installed away from the project: what people get with pip."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def embinv(installed: Path, cwd: Path, *arguments) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-m", "modeling_embinv.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_commands_work_away_from_the_project(installed, tmp_path):
    """Encoder YAMLs and the checkpoint were looked for beside the package.

    `demo` and `prepare` failed for everybody who had installed it.
    """
    where = "import modeling_embinv; print(modeling_embinv.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed)), found.stderr
    done = embinv(installed, tmp_path, "demo", "We will meet at the station.", "--model", CHECKPOINT)
    assert done.returncode == 0 and "recovered" in done.stdout, done.stderr
    (tmp_path / "texts.txt").write_text("The king is dead.\nLong live the king.\n")
    done = embinv(installed, tmp_path, "prepare", "texts.txt", "--out", "pairs", "--length", "8")
    assert done.returncode == 0, done.stderr
    done = embinv(installed, tmp_path, "prepare", "texts.txt", "--out", "pairs", "--encoder", "minilmm")
    assert done.returncode == 2 and "minilmm" in done.stderr and "Traceback" not in done.stderr
    without = embinv(installed, tmp_path, "demo", "We will meet at the station.")
    assert without.returncode == 2 and "embinv/embinv-minilm" in without.stderr and "Traceback" not in without.stderr
