"""Pieces of the page: tables, bars and badges."""

import re
from collections.abc import Sequence
from html import escape

from .figures import Figure
from .summary import shown
from .tiers import OTHER_TEXT, PUBLIC_TEXT

UNMEASURED = "not measured"
# heads of columns of floors
_FLOORS = {OTHER_TEXT: "Floor: another row", PUBLIC_TEXT: "Floor: public sentence"}
# rows of a table that is not torn apart between two pages of paper
SHORT = 6
# control characters, and marks that turn the direction of what stands behind them
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters and marks of direction written out, as ⟨U+202E⟩; white space stays."""
    return _UNSEEN.sub(lambda mark: mark.group() if mark.group() in "\t\n\r" else _name(mark.group()), text)


def isolated(text: str) -> str:
    """HTML of an id or a name from the store, which cannot change the order of what stands beside it."""
    return f"<bdi>{escape(_UNSEEN.sub(lambda mark: _name(mark.group()), text))}</bdi>"


def _name(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; on a narrow screen it scrolls by itself."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    short = " class=short" if len(rows) <= SHORT else ""
    return f'<div class="wide"><table{short}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(figure: Figure) -> str:
    """A share as a bar, with a tick at its highest floor."""
    width = 100 * min(max(figure.value, 0), 1)
    tick = f'<b style="left:{100 * max(figure.floors.values()):.1f}%"></b>' if figure.floors else ""
    return f'<div class="track"><i style="width:{width:.1f}%"></i>{tick}</div>'


def cell(figure: Figure | None, with_floor: bool = False) -> str:
    """A share and its interval on one line, and its highest floor below; nothing where it was not measured."""
    if figure is None:
        return ""
    below = ""
    if with_floor and figure.floors:
        below = f"<br><small class=soft>floor {100 * max(figure.floors.values()):.0f} %</small>"
    return f"<span class=one>{shown(figure)}</span>{below}"


def badge(severity: str | None) -> str:
    """The severity in its colour."""
    return f'<span class="badge {severity or "none"}">{severity or UNMEASURED}</span>'


def interval(figure: Figure) -> str:
    """The bounds in percent."""
    return f"{100 * figure.low:.0f}–{100 * figure.high:.0f} %"


def floor_columns(figures: Sequence[Figure]) -> dict[str, list[str]]:
    """The floors that some of the figures have: the head of a column → a cell for each figure, or ""."""
    names = dict.fromkeys(name for figure in figures for name in figure.floors)
    return {
        escape(_FLOORS.get(name, name)): [
            f"{100 * figure.floors[name]:.0f} %" if name in figure.floors else "" for figure in figures
        ]
        for name in names
    }
