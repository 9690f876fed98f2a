"""The page's parts on single words: those that the word head names, and the share that came back by collection."""

from collections.abc import Iterator
from html import escape

from .html import cell, isolated, table
from .named_words import LEAST
from .report import Report


def named_words(report: Report) -> Iterator[str]:
    """Which words are in the vectors, by the word head."""
    if report.named_words is None:
        return
    yield "<h2>Words in the vectors</h2><p>Besides whole texts, the checkpoint names single words that a vector "
    yield "holds, each with its probability, also of texts that are longer than it writes. A rare word that its "
    where = " The words of each row are in <code>hits.jsonl</code>." if report.reveal else ""
    yield f"vocabulary does not hold is never named.{where}</p>"
    figures = report.named_words.figures
    if not any(one.named for one in figures):
        yield f"<p>No word is named with {100 * LEAST:.0f} % or more.</p>"
        return
    if all(one.precision is None for one in figures):
        yield "<p>The store holds no texts: how many should be there is an <strong>estimate</strong>.</p>"
        rows = [(f"{100 * one.threshold:.0f} %", f"{one.named:,}", cell(one.expected)) for one in figures]
        yield table(("Probability from", "Content words named", "Should be there"), rows)
        return
    cells = [
        (
            f"{escape(one.texts)} ({one.rows:,})", f"{100 * one.threshold:.0f} %", f"{one.named:,}",
            cell(one.expected), cell(one.precision, with_floor=True), cell(one.recall, with_floor=True),
        )
        for one in figures
    ]  # fmt: skip
    head = ("Texts", "Probability from", "Words named", "Should be there", "Are there", "Of all content words")
    yield table(head, cells)


def collections(report: Report) -> Iterator[str]:
    """The share of content words that came back of each collection, where the store has several."""
    parts = report.source.get("collections")
    if not parts:
        return
    yield "<h2>By collection</h2><p>The sample is stratified: each collection has its share of the rows.</p>"
    found = {} if not report.measured else report.by_collection(report.measured[0])
    rows = [
        (isolated(one["name"]), f"{one['rows']:,}", f"{one['drawn']:,}", cell(found.get(one["name"]))) for one in parts
    ]
    yield table(("Collection", "Vectors", "Drawn", "Content words that came back"), rows)
