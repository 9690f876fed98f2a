"""An audit in a dozen lines."""

from collections.abc import Iterator

from .figures import Figure
from .report import Report

NAMES = {"words": "content words", "f1": "F1 of words", "exact": "whole texts", "cosine": "cosine"}


def lines(report: Report) -> Iterator[str]:
    """The lines."""
    source, sample = report.source, report.sample
    yield f"source      {source['name']}: {sample.total:,} vectors of {sample.vectors.shape[1]} numbers"
    yield f"vectors     {report.origin}"
    yield f"sample      {len(sample.rows):,} rows, seed {report.seed}"
    for result in report.tiers:
        yield f"attacker    {result.tier.name}: holds {result.tier.holds} ({len(result.sample.rows):,} rows)"
        for name, figure in result.figures.items():
            yield f"  {NAMES.get(name, name):<16} {shown(name, figure)}"
        if not result.figures and result.expected is not None:
            yield f"  expected to be right: {shown('tokens', result.expected)} of tokens (an estimate)"
    yield f"severity    {report.severity}"


def shown(name: str, figure: Figure) -> str:
    """A figure with its interval and its floors."""
    if name == "cosine":
        return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
    text = f"{100 * figure.value:.0f} % [{100 * figure.low:.0f}, {100 * figure.high:.0f}]"
    if figure.floors:
        text += "   floor: " + ", ".join(f"{name} {100 * value:.0f} %" for name, value in figure.floors.items())
    return text
