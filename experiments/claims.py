"""Sentences that follow from figures, checked against them: "A > B" by the means, "A >> B" with intervals apart.

"A ~ B" holds when the intervals overlap. Each side is a path (see `measured`) or a number.
"""

import re

from measured import find

from modeling_embinv.evaluation.held_out import Score


def holds(claim: str, within: str = "") -> bool:
    """Whether a comparison is true of the results; `within` is put before its paths."""
    left, comparison, right = re.fullmatch(r"(.+?) (>>|>|~) (.+)", claim).groups()
    a, b = _side(left, within), _side(right, within)
    if comparison == ">":
        return a.mean > b.mean
    if comparison == ">>":
        return a.low > b.high
    return a.low <= b.high and b.low <= a.high


def _side(text: str, within: str) -> Score:
    try:
        number = float(text)
    except ValueError:
        number = find(f"{within} | {text}" if within else text)
    return number if isinstance(number, Score) else Score(number, number, number)
