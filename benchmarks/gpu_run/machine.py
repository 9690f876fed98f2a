"""The commands on the machine, in the order of benchmarks/README.md; each ends well within ten minutes.

python3 -m benchmarks.gpu_run.machine receive FOLDER
python3 -m benchmarks.gpu_run.machine train --budget 500
python3 -m benchmarks.gpu_run.machine send --out $OUT --freeze --first 0 --count 4
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from modeling_embinv.errors_embinv import EmbInvError

from . import parcels
from .parcels import CONFIG, LOG, SETTINGS, WEIGHTS, WHOLE

DISK = Path(os.environ.get("EMBINV_DISK", "/root/embinv"))
FROZEN = "frozen"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    receive = commands.add_parser("receive", help="copy what was carried along to the disk")
    receive.add_argument("folder", type=Path)
    train = commands.add_parser("train", help="train, or go on training")
    train.add_argument("--budget", type=float, required=True, help="seconds of training in this command")
    train.add_argument("--updates", type=int, help="updates of this command at most")
    send = commands.add_parser("send", help="the averaged weights in fp16, in parts; training may go on meanwhile")
    send.add_argument("--out", type=Path, required=True, help="the folder that comes back")
    send.add_argument("--freeze", action="store_true", help="take the newest weights; else those of the last command")
    send.add_argument("--first", type=int, default=0, help="first part")
    send.add_argument("--count", type=int, default=3, help="how many parts; 16 MiB each, 64 MiB in one command")
    options = parser.parse_args(arguments)
    try:
        if options.command == "receive":
            print("received", *parcels.receive(options.folder, DISK))
        elif options.command == "train":
            from .run import GPURun

            GPURun(DISK).train(options.budget, options.updates)
        else:
            if options.freeze:
                freeze()
                print(unfinished(), end="", file=sys.stderr)
            print("sent", *send_parts(options.out, options.first, options.count))
    except EmbInvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def freeze() -> None:
    """Keep the newest weights as they are, to be sent in several commands while training goes on.

    Raises:
        EmbInvError: when nothing was trained.
    """
    if not (DISK / WEIGHTS).exists():
        raise EmbInvError(f"{DISK} holds no {WEIGHTS}: train first.")
    (DISK / FROZEN).mkdir(exist_ok=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(DISK / name, DISK / FROZEN / name)


def unfinished() -> str:
    """One line where the run has seconds left, by the newest line of the log that tells them; else ""."""
    lines = (DISK / LOG).read_text(encoding="utf-8").splitlines() if (DISK / LOG).exists() else []
    spent = next((line["spent"] for line in map(json.loads, reversed(lines)) if "spent" in line), 0.0)
    seconds = json.loads((DISK / SETTINGS).read_text(encoding="utf-8"))["seconds"]
    if spent >= seconds:
        return ""
    return f"warning: {spent:,.0f} of {seconds:,.0f} seconds are trained: the weights get better to the end\n"


def send_parts(out: Path, first: int, count: int) -> list[str]:
    """Write some parts of the frozen weights, the model's configuration and the log; returns the parts' names.

    Raises:
        EmbInvError: when nothing was frozen.
    """
    if not (DISK / FROZEN).exists():
        raise EmbInvError(f"{DISK} holds no frozen weights: send the first parts with --freeze.")
    weights = (DISK / FROZEN / WEIGHTS).read_bytes()
    parts = list(parcels.split(weights))
    out.mkdir(parents=True, exist_ok=True)
    (out / WHOLE).write_text(hashlib.sha256(weights).hexdigest())
    names = [f"weights-{number:02d}-of-{len(parts):02d}" for number in range(len(parts))]
    for name, part in list(zip(names, parts, strict=True))[first : first + count]:
        (out / name).write_bytes(part)
    for path in (DISK / FROZEN / CONFIG, DISK / LOG):
        if path.exists():
            shutil.copyfile(path, out / path.name)
    return names[first : first + count]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
