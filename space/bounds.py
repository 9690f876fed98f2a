"""What a caller may send: each bound is stated once; the page's control is made from it and the server checks by it.

A slider's range holds on the page only. The API takes any JSON, so that every value is checked again here.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr

from modeling_embinv.settings_embinv import SETTINGS, Setting

MAX_KEPT = 100_000  # of a text over its limit; the server reads no body that is far longer, see `guard.MAX_BODY`

T = TypeVar("T", bound=gr.components.Component)


class Bound:
    """What one parameter may be: `check` gives the value to use, `control` the component on the page.

    default: what an empty one stands for. kind: of the values that callers send.
    """

    default: Any  # no value here: it would become that of the fields
    kind: type = str

    def check(self, value: Any) -> Any:
        """The value to use.

        Raises:
            ValueError: in one line that says what would be right and repeats nothing of what was sent.
        """
        raise NotImplementedError

    def bind(self, component: T) -> T:
        """The component, whose values are checked by this bound from now on."""
        component.bound = self
        return component


@dataclass(frozen=True)
class Number(Bound):
    """A finite number from `low` to `high`, whole if `step` is; an empty one is `default`."""

    label: str
    low: float
    high: float
    default: float
    step: float = 1
    info: str | None = None

    @property
    def kind(self) -> type:  # type: ignore[override]
        """The type of the number."""
        return int if isinstance(self.step, int) else float

    @property
    def range_in_words(self) -> str:
        """What is right, without a full stop."""
        kind = "a whole number" if self.kind is int else "a number"
        return f"{self.label}: give {kind} from {self.low} to {self.high}"

    def check(self, value: Any) -> float:
        """The number, an int if the step is one."""
        if value is None:
            return self.default
        # true is an int in Python; NaN is no number from low to high
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"{self.range_in_words}.")
        if not isinstance(self.step, int):
            return float(value)
        if value != math.floor(value):
            raise ValueError(f"{self.range_in_words}.")
        return int(value)

    def control(self, **looks: Any) -> gr.Slider:
        """A slider over the range."""
        slider = gr.Slider(
            self.low, self.high, self.default, step=self.step, label=self.label, info=self.info, **looks
        )
        return self.bind(slider)

    def box(self, **looks: Any) -> gr.Number:
        """For a range that is too wide for a slider."""
        ends = dict(minimum=self.low, maximum=self.high)
        return self.bind(gr.Number(self.default, label=self.label, precision=0, **ends, **looks))


@dataclass(frozen=True)
class Choice(Bound):
    """One of a few words; an empty one is the default: the first, unless another is named."""

    label: str
    choices: tuple[str, ...]
    info: str | None = None
    usual: str | None = None

    @property
    def default(self) -> str:
        """The word that stands for none."""
        return self.choices[0] if self.usual is None else self.usual

    def check(self, value: Any) -> str:
        """One of the words."""
        if value is None:
            return self.default
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError(f"{self.label}: choose one of {', '.join(self.choices)}.")
        return value

    def control(self, kind: type[T] = gr.Dropdown, **looks: Any) -> T:
        """A component of this kind with the words to choose from."""
        component = kind(list(self.choices), value=self.default, label=self.label, info=self.info, **looks)
        return self.bind(component)


@dataclass(frozen=True)
class NumberOrDefault(Bound):
    """A number as a word, or the word for none of one's own: a slider cannot be empty, and a box would send 0.

    words: some of the numbers, to choose from; any other may be typed.
    """

    number: Number
    words: tuple[str, ...]
    default: str = "default"

    def check(self, value: Any) -> Any:
        """What was typed; the page says beside its control what is wrong with it."""
        if value is None:
            return self.default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(self._wanted)
        return value

    def number_of(self, value: str | float) -> float | None:
        """The number that was typed; None for none.

        Raises:
            ValueError: as of `check`.
        """
        if value in ("", self.default):
            return None
        try:
            return self.number.check(float(value) if isinstance(value, str) else value)
        except ValueError:
            raise ValueError(self._wanted) from None

    @property
    def _wanted(self) -> str:
        return f"{self.number.range_in_words}, or {self.default}."

    def control(self, **looks: Any) -> gr.Dropdown:
        """The words to choose from, and a place to type."""
        words, about = [self.default, *self.words], dict(label=self.number.label, info=self.number.info)
        return self.bind(gr.Dropdown(words, value=self.default, allow_custom_value=True, **about, **looks))


def number_of(name: str, high: float, low: float | None = None, step: float = 1) -> Number:
    """The bound of a setting of `generate`, as its table has it, up to what this page allows: `high`."""
    setting = SETTINGS[name]
    low = setting.low if low is None else low
    return Number(_label(setting), low, high, setting.default, step, shown(setting.help))


def number_or_default(name: str, high: float, *words: str) -> NumberOrDefault:
    """The bound of an optional number: `words` are some to choose from."""
    setting = SETTINGS[name]
    step = 1 if setting.kind is int else 0.01
    info = shown(f"{setting.help}; default: {setting.none}")
    low = max(setting.low or 0, 0)
    return NumberOrDefault(Number(_label(setting), low, high, 0, step, info), words)


def choice_of(name: str, without: tuple[str, ...] = ()) -> Choice:
    """The choices of a setting of `generate`, its default first, but those that this model lacks."""
    setting = SETTINGS[name]
    choices = dict.fromkeys([setting.default, *setting.choices])
    return Choice(_label(setting), tuple(word for word in choices if word not in without), shown(setting.help))


def shown(text: str) -> str:
    """A text about settings with the labels of their controls in place of their names."""
    named = {name: _label(one) for name, one in SETTINGS.items() if "_" in name}  # the others are plain words
    named["feedback"] = "the judge"  # its control is "Judged by"
    return re.sub(r"\w+", lambda word: named.get(word[0], word[0]), text)


def _label(setting: Setting) -> str:
    return setting.name.removeprefix("num_").replace("_", " ").capitalize()


@dataclass(frozen=True)
class Text(Bound):
    """A text of at most so many characters, spaces included, on at most so many lines that are not empty."""

    label: str
    characters: int
    num_lines: int | None = None

    def check(self, value: Any) -> str:
        """The text."""
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ValueError(f"{self.label}: give a text.")
        if len(value) > self.characters:
            raise ValueError(f"{self.label}: at most {self.characters:,} characters are read; this has more.")
        num_lines = sum(bool(line.strip()) for line in value.splitlines())
        if self.num_lines and num_lines > self.num_lines:
            raise ValueError(f"{self.label}: this has {num_lines} lines; at most {self.num_lines} are read at once.")
        # half of a surrogate pair is no character, and no tokenizer takes it
        return value.encode("utf-8", "replace").decode("utf-8")

    def control(self, value: str = "", **looks: Any) -> gr.Textbox:
        """A box for the text, which begins with `value`; of a longer one it keeps enough for `check` to refuse it."""
        # a browser counts some characters, such as emoji, as two
        kept = max(self.characters, min(2 * self.characters, MAX_KEPT))
        return self.bind(gr.Textbox(value, label=self.label, max_length=kept + 1, **looks))


@dataclass(frozen=True)
class Upload(Bound):
    """A file that was uploaded here before, by the path that the upload gave; gradio checks that it is one."""

    label: str
    kinds: tuple[str, ...]

    def check(self, value: Any) -> dict[str, Any] | None:
        """The file as gradio describes one, or None where there is none."""
        if value is None:
            return None
        path, name = (value.get("path"), value.get("orig_name")) if isinstance(value, dict) else (None, None)
        # gradio would fetch an address of any size and keep it
        if not isinstance(path, str) or "://" in path or not isinstance(name, str | None):
            raise ValueError(f"{self.label}: upload the file to this page.")
        if len(path) > 4096 or "\0" in path:
            raise ValueError(f"{self.label}: this path names no file.")
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def control(self, **looks: Any) -> gr.File:
        """A field to drop the file in."""
        return self.bind(gr.File(label=self.label, file_types=list(self.kinds), **looks))
