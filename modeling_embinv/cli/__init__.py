"""The commands: flags, and what they print."""

import gc
import os
import sys
from importlib import import_module

from ..cores import threads_of_quota
from .interrupts import no_interrupt_lost


def command() -> int:
    """The console script `embinv`."""
    return _import_and_run("embinv", ".main")


def train_command() -> int:
    """train.py."""
    return _import_and_run("train.py", ".train")


def _import_and_run(name: str, module: str) -> int:
    """Runs `main` of a module; a Ctrl-C while it is imported ends the process with one line, too."""
    gc.set_threshold(100_000, 20, 20)  # half a second less: imports make a million objects and hardly any garbage
    os.environ.update(threads_of_quota())
    try:
        with no_interrupt_lost([]):
            status: int = import_module(module, __package__).main()
            return status
    except KeyboardInterrupt:
        print(f"{name}: interrupted. Nothing was saved.", file=sys.stderr)
        return 130
