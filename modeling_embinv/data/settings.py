"""Settings as dataclasses: YAML files read, and every value checked, by the type hints of the fields."""

import dataclasses
import math
import types
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ..errors_embinv import EmbInvError, shown

# far beyond any settings file; what is longer or deeper would only cost time and memory
MOST_BYTES, MOST_LEVELS = 100_000, 10
_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", type(None): "null"}
_UNIONS = (Union, types.UnionType)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The range of a number: a type hint is `Annotated[int, Bounds(1, 100)]`, both ends included.

    Args:
        least, most: the smallest and the largest value.
        above: what a value must exceed, in place of `least`.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None

    def broken_by(self, value: float) -> str | None:
        """What a value must be, if it is not."""
        if self.least is not None and value < self.least:
            return f"at least {self.least:,}"
        if self.above is not None and value <= self.above:
            return f"above {self.above:,}"
        if self.most is not None and value > self.most:
            return f"at most {self.most:,}"
        return None


def check_settings(settings: Any) -> None:
    """Check the fields of a dataclass against their type hints.

    Raises:
        EmbInvError: naming the first field whose value is of another type, not finite or out of bounds.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        check_value(name, getattr(settings, name), hint)


def check_value(name: str, value: Any, hint: Any) -> None:
    """Check one value.

    Raises:
        EmbInvError: saying what is wanted and what was given.
    """
    if wanted := _wanted(hint) if not _fits(value, hint) else _outside(value, hint):
        raise EmbInvError(f"{name} must be {wanted}, got {shown(value)}.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the type, bounds apart."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _fits(value, parts[0])
    if kind in _UNIONS:
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str) and value in parts
    if kind is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, (int, float)) and _is_finite(value)
    return isinstance(value, hint)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _outside(value: Any, hint: Any) -> str | None:
    """What a value of the right type must be, if it is out of bounds."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        bounds: Bounds = parts[1]
        return bounds.broken_by(value)
    if kind in _UNIONS:
        return next(_outside(value, part) for part in parts if _fits(value, part))
    if kind is list:
        broken = (_outside(item, parts[0]) for item in value)
        return next((f"a list of numbers, each {wanted}" for wanted in broken if wanted), None)
    return None


def _wanted(hint: Any) -> str:
    """The type in words."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _wanted(parts[0])
    if kind in _UNIONS:
        return " or ".join(map(_wanted, parts))
    if kind is Literal:
        return f"one of {', '.join(parts)}"
    if kind is list:
        return f"a list, each item {_wanted(parts[0])}"
    return _WORDS[hint]


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which a few lines can multiply without end, of few levels, and with no key twice."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here; write the value out")
        self.level += 1
        if self.level > MOST_LEVELS:
            raise yaml.YAMLError(f"nested more than {MOST_LEVELS} levels deep")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
        if twice := next((key for key, count in counts.items() if count > 1), None):
            raise yaml.YAMLError(f"the key {shown(twice)} is there twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, schema: type) -> dict[str, Any]:
    """The values of a YAML file: keys are fields of the dataclass `schema`, values of their types; some may be absent.

    Raises:
        EmbInvError: with one line that names the file and what is wrong in it: not readable, too large, no mapping, an
            unknown key, or a value of another type or out of bounds.
    """
    values, hints = load_yaml(path), get_type_hints(schema, include_extras=True)
    if not isinstance(values, dict):
        raise EmbInvError(f"{path} must hold `key: value` lines; the keys are {', '.join(hints)}.")
    for key, value in values.items():
        if key not in hints:
            raise EmbInvError(f"{path}: unknown key {shown(key)}; known are {', '.join(hints)}.")
        if isinstance(value, str) and not _fits(value, hints[key]):
            values[key] = value = _as_float(value, hints[key])
        try:
            check_value(key, value, hints[key])
        except ValueError as error:
            raise EmbInvError(f"{path}: {error}") from error
    return values


def load_yaml(path: str | Path) -> Any:
    """What a YAML file holds.

    Raises:
        EmbInvError: with one line that names the file: not readable, too large or deep, an alias, or a key twice.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise EmbInvError(f"it is longer than {MOST_BYTES:,} bytes")
        return yaml.load(content.decode("utf-8-sig"), Loader=_Loader)
    except Exception as error:  # besides its own errors, PyYAML lets through what its conversions raise
        raise EmbInvError(f"cannot read {path}: {' '.join(str(error).split())[:300]}") from error


def _as_float(text: str, hint: Any) -> Any:
    """YAML 1.1 takes 1e-4, without a point, for text."""
    try:
        return float(text) if _fits(0.5, hint) else text
    except ValueError:
        return text
