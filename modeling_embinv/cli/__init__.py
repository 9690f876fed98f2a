"""The commands: flags, and what they print."""

import gc
import sys


def command() -> int:
    """The console script `embinv`: a Ctrl-C while the commands are imported ends it with one line, too."""
    gc.set_threshold(100_000, 20, 20)  # half a second less: imports make a million objects and hardly any garbage
    try:
        from .main import main

        return main()
    except KeyboardInterrupt:
        print("embinv: interrupted. Nothing was saved.", file=sys.stderr)
        return 130
