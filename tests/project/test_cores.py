"""The cores that a container, or other programs, leave a process."""

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from modeling_embinv import cores as cores_module
from modeling_embinv.cli.resources import load_model
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.hub.tiny_folder import new_tiny_inverter

ROOT = Path(__file__).parents[2]
UNLIMITED = "max 100000\n"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def written(folder: Path, files: dict[str, str]) -> Path:
    """A folder with files, as the kernel shows its control groups."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "groups, files, cores",
    [
        # version 2, inside a container: its own group is the root
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        # on the host: the group of a service, whose slice has the smaller quota
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a", {"cpu.max": UNLIMITED, "a/cpu.max": UNLIMITED}, None),
        # version 1; the container sees its group at the root, though its path is the host's
        ("3:cpuset:/docker/1\n2:cpu,cpuacct:/docker/1", {f"cpu/{QUOTA}": "50000", f"cpu/{PERIOD}": "100000"}, 0.5),
        ("1:cpu:/a", {f"cpu/a/{QUOTA}": "-1", f"cpu/a/{PERIOD}": "100000"}, None),
        # a controller of another name, no control groups, and files that say nothing
        ("2:cpuacct:/a", {f"cpu/a/{QUOTA}": "50000", f"cpu/a/{PERIOD}": "100000"}, None),
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "\n"}, None),
        ("0::/", {"cpu.max": "0 0\n"}, None),
    ],
)  # fmt: skip
def test_the_smallest_quota_counts(tmp_path, groups, files, cores):
    """A container of one core on a host of two had two threads that waited for each other: five times as long."""
    root = written(tmp_path / "cgroup", files)
    (tmp_path / "own").write_text(groups + "\n")
    assert cores_module.quota(root, tmp_path / "own") == cores
    assert cores_module.quota(root, tmp_path / "nowhere") is None


def limited(tmp_path: Path, cores: float) -> tuple[Path, Path]:
    """Control groups with a quota of so many cores, and the file that names this process's."""
    (tmp_path / "own").write_text("0::/\n")
    return written(tmp_path / "cgroup", {"cpu.max": f"{int(cores * 100_000)} 100000\n"}), tmp_path / "own"


@pytest.mark.parametrize(
    "cores, given, threads",
    [(1.5, None, "1"), (0.5, None, "1"), (3.0, None, "3"), (8.0, None, None), (1.5, "6", None)],
)
def test_no_more_threads_than_whole_cores(tmp_path, monkeypatch, cores, given, threads):
    """Half a core had no thread, a user's own number was lost, or a large quota gave threads beyond the cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    for name, path in zip(("GROUPS", "OWN"), limited(tmp_path, cores), strict=True):
        monkeypatch.setattr(cores_module, name, path)
    assert cores_module.threads_of_quota() == ({} if threads is None else {"OMP_NUM_THREADS": threads})


@pytest.mark.parametrize(
    "seconds, idle, threads",
    [(2.0, 2.0, 2), (2.0, 0.8, 1), (2.0, 1.2, 2), (2.0, 6.6, 4), (2.0, 30.0, 8), (0.9, 0.0, 8)],
)
def test_a_thread_for_each_idle_core(monkeypatch, seconds, idle, threads):
    """Threads that share a core wait for each other; time that others' cores are idle must not count."""
    now, core, others = [100.0], SimpleNamespace(idle=50.0), SimpleNamespace(idle=0.0)
    monkeypatch.setattr(cores_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [others, core, others])
    watched = cores_module.IdleCores()
    now[0], core.idle, others.idle = now[0] + seconds, core.idle + idle, 1e6
    assert watched.threads(8) == threads


def test_a_machine_that_hides_its_load(monkeypatch):
    """In a sandbox without /proc/stat every command would have ended in an error."""

    def hidden(percpu):
        raise PermissionError(13, "Permission denied", "/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", hidden)
    monkeypatch.setattr(cores_module, "time", SimpleNamespace(monotonic=itertools.count(0, 5).__next__))
    assert cores_module.IdleCores().threads(8) == 8


@pytest.mark.parametrize("idle, given, threads", [(1.0, None, 2), (0.1, None, 1), (0.1, "2", 2)])
def test_a_command_leaves_busy_cores_alone(monkeypatch, capsys, tmp_path, encoder, idle, given, threads):
    """Beside one other program a search took twice as long with two threads as with one; a user's number stays."""
    folder = export(new_tiny_inverter(encoder.tokenizer), prepare_tokenizer(encoder.tokenizer), tmp_path / "model")
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(cores_module.IdleCores, "threads", lambda _, most: min(most, 1 + round(idle)))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        options = argparse.Namespace(model=str(folder), device="cpu", int8=False, idle_cores=cores_module.IdleCores())
        load_model(options)
        assert torch.get_num_threads() == threads
        torch.set_num_threads(2)
        load_model(options)  # as the audit's attackers who train: meanwhile this process itself was busy
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert ("computing with 1 of 2 threads" in capsys.readouterr().err) == (threads == 1)


@pytest.mark.parametrize(
    "start", ["from modeling_embinv.cli import command as main", "from train import train_command as main"]
)
def test_threads_are_told_before_torch_is_loaded(tmp_path, start):
    """OpenMP reads its number of threads once: what is set later changes nothing."""
    groups, own = limited(tmp_path, 0.5)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom modeling_embinv import cores\n"
        f"cores.GROUPS, cores.OWN = Path({str(groups)!r}), Path({str(own)!r})\n"
        f"sys.argv = ['embinv', '--help']\n{start}\n"
        "assert 'torch' not in sys.modules\nmain()\nprint(os.environ['OMP_NUM_THREADS'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "1"
