"""Command lines: one parser for every command, and the flags of a settings dataclass."""

import argparse
import dataclasses
import difflib
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NoReturn, TypeAlias, Union, get_args, get_origin, get_type_hints

from ..errors_embinv import EmbInvError

# of `--batch-size`, and of the calls that take one: vectors in one forward pass; memory ends long before
LARGEST_BATCH = 65_536
# flags that a usage lists
_MOST_IN_USAGE = 8


class _Group(argparse._ArgumentGroup):
    """A group of flags, whose names have hyphens as well."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        return super().add_argument(*map(hyphenated, names), **options)


class _HelpFormatter(argparse.HelpFormatter):
    """Shows the default of every flag that has one, and examples as they are."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        is_plain = isinstance(default, int | float | str) and not isinstance(default, bool)
        is_shown = is_plain and default != argparse.SUPPRESS and action.option_strings and "default" not in text
        return f"{text} (default: %(default)s)" if is_shown else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Examples, a line each, keep their lines."""
        return text if "\n" in text else super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """A parser whose flags are printed with hyphens and taken with underscores, too: `--num-steps`, `--num_steps`.

    Every mistake is an `EmbInvError` of one line, which suggests the nearest flag or command. Flags are not
    abbreviated, so that a new one never changes what an old command line means. `--debug` belongs to every command.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options = {"formatter_class": _HelpFormatter, "allow_abbrev": False, **options}
        super().__init__(*args, **options)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show where in the code an error arose"
        )

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As argparse's, with hyphens in the names of flags."""
        return super().add_argument(*map(hyphenated, names), **options)

    def add_argument_group(self, *args: Any, **options: Any) -> argparse._ArgumentGroup:
        """As argparse's, with hyphens in the names of flags."""
        group = _Group(self, *args, **options)
        self._action_groups.append(group)
        return group

    def format_help(self) -> str:
        """As argparse's; of many flags, which follow one by one, the usage has the required ones alone."""
        if self.usage is not None or len(self._actions) <= _MOST_IN_USAGE:
            return super().format_help()
        shown = [_in_usage(action) for action in self._actions if action.required or not action.option_strings]
        self.usage = " ".join(["%(prog)s", "[flags]", *shown])
        try:
            return super().format_help()
        finally:
            self.usage = None

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's; an unknown flag is an error here, so that the message comes from its own command.

        Raises:
            EmbInvError: for every mistake.
        """
        if args is None:
            raise TypeError("give the arguments, such as sys.argv[1:]")
        args = _with_hyphens(args)
        for name in self._own_flags(args):
            if name not in self._option_string_actions:
                self.error(f"unknown argument {name[:60]!r}{_nearest(name, self._option_string_actions)}")
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0][:60]!r}")
        return options, unknown

    def _own_flags(self, arguments: list[str]) -> Iterator[str]:
        """The flags of this parser; what follows a command is that command's."""
        for argument in arguments:
            if argument == "--" or (self._subparsers is not None and not argument.startswith("-")):
                return
            if argument.startswith("--"):
                yield argument.partition("=")[0]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            hint = _nearest(str(value), choices) or f"; choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"invalid choice: {str(value)[:60]!r}{hint}")

    def error(self, message: str) -> NoReturn:
        """One line in place of the usage.

        Raises:
            EmbInvError: always.
        """
        raise EmbInvError(f"{' '.join(message.split())[:300]} (see `{self.prog} --help`)")


def _in_usage(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    if action.option_strings:
        return f"{action.option_strings[0]} {name.upper()}"
    return {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


# argparse's class takes no brackets when the program runs, hence the quotes
Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


def hyphenated(name: str) -> str:
    """A flag's name with hyphens for underscores; a positional's name as it is."""
    return name.replace("_", "-") if name.startswith("--") else name


def _with_hyphens(arguments: Iterable[str]) -> list[str]:
    """The arguments, the names of flags with hyphens; values keep their underscores."""
    result, rest = [], list(arguments)
    while rest and rest[0] != "--":
        name, equals, value = rest.pop(0).partition("=")
        result.append(hyphenated(name) + equals + value if name.startswith("--") else name + equals + value)
    return result + rest


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def number(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    """The type of a flag that takes a number, int or float, from `least` to `most`."""
    name = "whole number" if kind is int else "number"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a {name} from {least:,} to {most:,}, got {text[:40]!r}")
        return value

    return parse


def add_settings(parser: argparse.ArgumentParser, schema: type) -> None:
    """A flag for each field of a dataclass; what is not given is absent, so that values from elsewhere stand.

    The values have the types of the fields; their bounds are the dataclass's to check.
    """
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        text = field.metadata["help"].replace("%", "%%")
        parser.add_argument(
            f"--{field.name}", default=argparse.SUPPRESS, help=text + _default_of(field), **_kind(hints[field.name])
        )


def _default_of(field: dataclasses.Field[Any]) -> str:
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    if default is None:
        return ""
    if default is dataclasses.MISSING:
        return " (required)"
    if isinstance(default, list):
        default = " ".join(map(str, default))
    return f" (default: {str(default).lower() if isinstance(default, bool) else default})"


def _kind(hint: Any) -> dict[str, Any]:
    """What argparse needs to know of a type hint."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is list:
        return {**_kind(get_args(hint)[0]), "nargs": "+"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    return {"action": argparse.BooleanOptionalAction} if hint is bool else {"type": hint}
