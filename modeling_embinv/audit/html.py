"""Pieces of the page: tables, bars and badges."""

from collections.abc import Sequence
from html import escape

from .figures import Figure

UNMEASURED = "not measured"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; on a narrow screen it scrolls by itself."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(figure: Figure) -> str:
    """A share as a bar, with a tick at its highest floor."""
    width = 100 * min(max(figure.value, 0), 1)
    tick = f'<b style="left:{100 * max(figure.floors.values()):.1f}%"></b>' if figure.floors else ""
    return f'<div class="track"><i style="width:{width:.1f}%"></i>{tick}</div>'


def badge(severity: str | None) -> str:
    """The severity in its colour."""
    return f'<span class="badge {severity or "none"}">{severity or UNMEASURED}</span>'


def interval(figure: Figure) -> str:
    """The bounds in percent."""
    return f"{100 * figure.low:.0f}–{100 * figure.high:.0f} %"


def floors(figure: Figure) -> str:
    """The floors by their names, in percent."""
    return "; ".join(f"{escape(name)} {100 * value:.0f} %" for name, value in figure.floors.items())
