"""An audit in a dozen lines."""

from collections.abc import Iterator

from ..inversion.terminal import printable
from ..progress.rates import counted
from .figures import Figure
from .named_words import LEAST, NamedWords
from .report import Report
from .summary import INVENTED, NAMES, alarms, learned, shown, size


def lines(report: Report) -> Iterator[str]:
    """The lines: no recovered word stands in them, and no name from the store can steer the terminal."""
    return map(printable, _lines(report))


def _lines(report: Report) -> Iterator[str]:
    sample = report.sample
    yield f"source      {report.place}: {size(report)}, read {report.date}"
    yield f"vectors     {report.origin}"
    texts = "; scored against the store's texts" if report.tiers or report.defences is not None else ""
    if report.checkpoint is None:
        texts = "; no inverter was tried"
    if sample.texts is None:
        texts = f"; the store holds no texts: {'an estimate' if report.is_estimate else 'nothing to score against'}"
    parts = "" if sample.collections is None else f" of {len(set(sample.collections))} collections"
    yield f"sample      {counted(len(sample.rows), 'row')}{parts}, seed {report.seed}{texts}"
    if report.is_estimate and report.measured:
        rows = max(len(result.sample.rows) for result in report.measured)
        yield f"planted     {rows:,} sentences with invented secrets, which the figures below are of"
    for result in report.measured:
        figures = "; ".join(
            f"{NAMES[name]} {shown(result.figures[name])}" for name in ("words", "exact") if name in result.figures
        )
        floors = result.figures["words"].floors if "words" in result.figures else {}
        beside = f"; floor {100 * max(floors.values()):.0f} % of words" if floors else ""
        others = {report.measured[0].tier.name: report.same_rows(result), "the nearest known text": result.nearest}
        found = [f"{name} {100 * figure.value:.0f} %" for name, figure in others.items() if figure is not None]
        beside += f"; on these rows {', '.join(found)}" if found else ""
        if figures:
            yield f"{result.tier.name:<11} {figures}{beside}"
        if result.kinds:
            kinds = (f"{kind} {_of_floor(figures.whole)}" for kind, figures in result.kinds.items())
            yield f"            whole, by kind: {', '.join(kinds)}"
    for result in report.tiers if report.is_estimate else ():
        if result.expected is not None:
            yield f"{result.tier.name:<11} expects {shown(result.expected)} of its tokens to be right"
    if report.alignment is not None:
        yield f"pairs       {learned(report.alignment)}"
    if report.named_words is not None:
        yield f"words       {'; '.join(named_lines(report.named_words)) or 'no word named'}"
    if report.filled is not None and report.filled.expected is not None:
        gaps, texts = counted(report.filled.gaps, "gap"), counted(report.filled.rows, "redacted text")
        right = shown(report.filled.expected)
        yield f"context     {gaps} of {texts} filled, of which {right} are expected to be right"
    if report.guesses is not None:
        yield f"guesses     {alarms(report.guesses)}; {report.guesses.severity}"
    if report.defences is not None:
        if report.defences.planted:
            yield f"defences    tried on {report.defences.rows:,} {INVENTED} (an estimate)"
        for one in report.defences.results[1:]:
            noise = "" if one.noise_words is None else f"; noise of this recall {100 * one.noise_words:.0f} %"
            yield (
                f"{one.name:<24} recall@10 {one.utility.recall:.2f}, content words {shown(one.words)} "
                f"({one.strongest}{noise}). {one.advice}"
            )
    for note in report.warnings:
        yield f"note        {note}"
    estimate = " (an estimate)" if report.is_estimate and report.severity else ""
    yield f"severity    {report.severity or 'not measured'}{estimate}"


def _of_floor(whole: Figure) -> str:
    """Entities that came back whole, of all, and how many of them the highest floor has."""
    floor = f" (floor {whole.count * max(whole.floors.values()):.0f}/{whole.count})" if whole.floors else ""
    return f"{whole.hits:.0f}/{whole.count}{floor}"


def named_lines(named: NamedWords) -> Iterator[str]:
    """What the word head names, of all texts and of long ones."""
    for one in named.figures:
        if one.threshold != LEAST or one.expected is None:
            continue
        if one.precision is None or one.recall is None:
            yield (
                f"{one.named:,} content words named with {100 * one.threshold:.0f} % or more, of which "
                f"{shown(one.expected)} should be there"
            )
            continue
        texts = "" if one.texts == "all" else f"texts {one.texts}: "
        yield f"{texts}{shown(one.recall)} of content words named; of the named, {shown(one.precision)} are there"
