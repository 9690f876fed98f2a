"""The commands: flags, and what they print."""

import gc
import os
import sys

from ..cores import threads_of_quota


def command() -> int:
    """The console script `embinv`: a Ctrl-C while the commands are imported ends it with one line, too."""
    gc.set_threshold(100_000, 20, 20)  # half a second less: imports make a million objects and hardly any garbage
    os.environ.update(threads_of_quota())
    try:
        from .main import main

        return main()
    except KeyboardInterrupt:
        print("embinv: interrupted. Nothing was saved.", file=sys.stderr)
        return 130
