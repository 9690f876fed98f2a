"""What travels to and from the machine: folders whose files are checked on arrival, and weights in small parts."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from modeling_embinv.errors_embinv import EmbInvError

# bytes of one upload, the working tree included, and of one file on the way back
UPLOAD, PART = 64 * 2**20, 16 * 2**20
MANIFEST = "manifest.json"
# the settings of a run, which go there with its corpus
SETTINGS = "run.json"
# what a run writes and the machine sends
WEIGHTS, CONFIG, LOG = "weights.safetensors", "config.json", "log.jsonl"
# the checksum of the whole weights, which goes with each of their parts
WHOLE = "weights.sha256"


def seal(folder: Path) -> None:
    """Write down the size and the checksum of every file of a folder."""
    files = {path.name: _described(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps(files, indent=1))


def receive(folder: Path, disk: Path) -> list[str]:
    """Copy the files of a sealed folder to the machine's disk; returns their names.

    Raises:
        EmbInvError: for a folder without a manifest, and for a file that is missing or damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise EmbInvError(f"{folder} holds no {MANIFEST}: was it carried along?")
    disk.mkdir(parents=True, exist_ok=True)
    names: dict[str, dict[str, object]] = json.loads((folder / MANIFEST).read_text())
    for name, expected in names.items():
        if not (folder / name).is_file() or _described(folder / name) != expected:
            raise EmbInvError(f"{folder / name} is missing or damaged: send it again.")
        shutil.copyfile(folder / name, disk / name)
    return list(names)


def _described(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def split(content: bytes, part: int = PART - 2**16) -> Iterator[bytes]:
    """A file's bytes in parts, each a little below what may come back as one file."""
    for first in range(0, len(content), part):
        yield content[first : first + part]


def check_upload(tree: Path, carried: Path) -> int:
    """Bytes of an upload: a working tree and a folder that is carried along.

    Raises:
        EmbInvError: for more than one upload may weigh.
    """
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in (tree, carried)]
    if sum(sizes) > UPLOAD:
        raise EmbInvError(
            f"{carried} weighs {sizes[1] / 2**20:.1f} MiB and the tree {sizes[0] / 2**20:.1f}, together more than the "
            f"{UPLOAD // 2**20} of one upload: keep weights out of the tree, or pack fewer texts."
        )
    return sum(sizes)
