"""Leak against utility, as SVG within the page."""

from collections.abc import Sequence
from html import escape

from .defences import DefenceResult

_WIDTH, _HEIGHT, _MARGIN = 640, 360, 48


def trade_off(results: Sequence[DefenceResult]) -> str:
    """A point for each defence: recall@10 to the right, content words that come back upwards, with intervals.

    The words are those of the strongest attacker. Points are numbered, and a list below names them: names beside
    points overlap.
    """
    top = max((one.words.high for one in results), default=1.0) or 1.0
    points = "".join(_point(number, one, top) for number, one in enumerate(results, 1))
    names = "; ".join(f"{number} {escape(one.name)}" for number, one in enumerate(results, 1))
    right, bottom = _WIDTH - _MARGIN, _HEIGHT - _MARGIN
    axes = (
        f'<path d="M{_MARGIN} {_MARGIN / 2}V{bottom}H{right}" fill="none" stroke="var(--line)"/>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">recall@10 (search)</text>'
        f'<text x="12" y="{_MARGIN / 2 - 8}">content words that come back</text>'
    )
    ticks = "".join(
        f'<text x="{_x(share):.0f}" y="{bottom + 18}" text-anchor="middle">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ) + "".join(
        f'<text x="{_MARGIN - 6}" y="{_y(share, top) + 4:.0f}" text-anchor="end">{100 * share:.0f} %</text>'
        for share in (0, top / 2, top)
    )
    return (
        f'<figure><div class="wide"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="Leak against search for each defence">'
        f"{axes}{ticks}{points}</svg></div><figcaption class=soft>{names}</figcaption></figure>"
    )


def _point(number: int, one: DefenceResult, top: float) -> str:
    x, y = _x(one.utility.recall), _y(one.words.value, top)
    low, high = _y(one.words.low, top), _y(one.words.high, top)
    return (
        f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="var(--floor)"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4" '
        f'fill="var(--bar)"><title>{escape(one.name)}</title></circle>'
        f'<text x="{x + 7:.1f}" y="{y - 5:.1f}">{number}</text>'
    )


def _x(share: float) -> float:
    return _MARGIN + share * (_WIDTH - 2 * _MARGIN)


def _y(share: float, top: float) -> float:
    bottom = _HEIGHT - _MARGIN
    return bottom - share / top * (bottom - _MARGIN / 2)
