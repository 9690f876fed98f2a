"""`embinv prepare | train | evaluate | calibrate | invert | fill | audit | demo | push`."""

import argparse
import os
import platform
import sys
from importlib.util import find_spec
from typing import Any

from .. import __version__
from ..cores import IdleCores
from ..data.flags import CommandParser, add_settings
from .audit import add_audit
from .calibrate import add_calibrate
from .demo import add_demo
from .evaluate import add_evaluate
from .fill import add_fill
from .invert import add_invert
from .outcome import epilog, outcome
from .prepare import add_prepare
from .push import add_push
from .train import run_train

_EXAMPLES = """
embinv demo "Our meeting is at noon."
embinv invert vectors.npy --out texts.jsonl
embinv invert --help
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit status, see `outcome`.

    Args:
        arguments: of the command line; None = those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    words = [argument for argument in arguments if argument != "--debug"]
    is_command = bool(words) and not words[0].startswith("-")
    return outcome(f"embinv {words[0][:20]}" if is_command else "embinv", arguments, lambda: _run(arguments, words))


def _run(arguments: list[str], words: list[str]) -> int | None:
    if words[:1] == ["train"]:  # its flags are the fields of a dataclass
        run_train(words[1:], "embinv train")
        return None
    if "_ARGCOMPLETE" in os.environ and find_spec("argcomplete") is not None:
        _complete()
    parser, _ = _parsers()
    if not words:
        parser.print_help()
        return None
    try:
        options = parser.parse_args(arguments)
    except SystemExit:  # after --help and --version
        return None
    options.idle_cores = IdleCores()  # from before the imports that take seconds
    return options.run(options)


def _complete() -> None:
    """Answers the shell, which asks for completions; the process ends there."""
    import argcomplete

    from ..training.config import TrainingConfig

    parser, train = _parsers()
    train.add_argument("config", nargs="?")
    add_settings(train, TrainingConfig)
    argcomplete.autocomplete(parser)


def _parsers() -> tuple[CommandParser, CommandParser]:
    """The parser of all commands, and that of `train`, whose flags are the fields of a dataclass."""
    parser = CommandParser(prog="embinv", description="Read the text back out of sentence embeddings.")
    parser.epilog = epilog(_EXAMPLES, "rows were left out, or an audit is over its thresholds")
    parser.add_argument("--version", "-V", action=_Version, nargs=0, help="show the versions and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (add_demo, add_invert, add_fill, add_audit, add_prepare, add_evaluate, add_calibrate, add_push):
        add(commands)
    return parser, commands.add_parser("train", help="train an inverter")


class _Version(argparse.Action):
    """Prints what a report of a bug should name."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import PackageNotFoundError, version

        parts = [f"embinv {__version__}", f"Python {platform.python_version()}"]
        for name in ("torch", "transformers"):
            try:
                parts.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                parts.append(f"no {name}")
        print(", ".join(parts))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
