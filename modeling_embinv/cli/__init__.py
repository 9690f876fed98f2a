"""The commands: flags, and what they print."""

import sys


def command() -> int:
    """The console script `embinv`: a Ctrl-C while the commands are imported ends it with one line, too."""
    try:
        from .main import main

        return main()
    except KeyboardInterrupt:
        print("embinv: interrupted. Nothing was saved.", file=sys.stderr)
        return 130
