"""`embinv prepare | train | evaluate | calibrate | invert | demo | push`."""

import argparse
import sys
import warnings

from .demo import add_demo
from .evaluate import add_calibrate, add_evaluate
from .invert import add_invert
from .prepare import add_prepare
from .push import add_push


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors of the user's making are one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="embinv", description="Read the text back out of sentence embeddings.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (add_demo, add_invert, add_prepare, add_evaluate, add_calibrate, add_push):
        add(commands)
    commands.add_parser("train", help="train an inverter: see `python train.py --help`", add_help=False)
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = lambda message, *_, **__: print(f"embinv: warning: {message}", file=sys.stderr)
    try:
        if arguments[:1] == ["train"]:
            return _train(arguments[1:])
        options = parser.parse_args(arguments)
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"embinv {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("embinv: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _train(arguments: list[str]) -> int:
    from ..training.assemble import train
    from ..training.config import parse_training_config

    train(parse_training_config(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
