"""Rows of which much came back, as a reader of the report sees them."""

from collections.abc import Iterator
from html import escape

from .hits import BAR, hits, row_name, shortened
from .html import isolated
from .report import Report
from .tiers import TierResult
from .words import word_spans, words

# rows, and words of each that the word head names
COUNT, NAMED = 5, 12


def examples(report: Report) -> Iterator[str]:
    """HTML of the rows of which the first attacker recovered most; bars for words unless they are to be revealed."""
    if not report.measured:
        return
    result = report.measured[0]
    found = sorted(hits(result), key=lambda hit: -hit.recovered)
    for hit in found[:COUNT]:
        kind = "invented sentence" if report.is_estimate else "row"
        collection, row = result.sample.row_keys()[hit.position]
        name = row_name(collection, row, result.sample.ids[hit.position] if result.sample.ids else None)
        yield (
            f"{_original(result, hit.position, report.reveal)}<br><small class=soft>{kind} {isolated(name)}: "
            f"{hit.recovered} of {hit.wanted} content words{_below(result, hit.position, report.reveal)}"
            f"{_named(report, result, hit.position)}</small>"
        )


def _original(result: TierResult, index: int, reveal: bool) -> str:
    """The original's words, those that came back marked; of a long text the first ones."""
    text, rest = shortened((result.sample.texts or [])[index])
    back = set(words(result.recovered.texts[index]))
    pieces, position = [], 0
    for word, start, end in word_spans(text):
        shown = escape(text[start:end]) if reveal else BAR
        pieces.append(escape(text[position:start]) if reveal else " ")
        pieces.append(f"<mark>{shown}</mark>" if word in back else f'<span class="lost">{shown}</span>')
        position = end
    return f"<bdi>{''.join(pieces)}{escape(text[position:]) if reveal else ''}</bdi>{rest}"


def _named(report: Report, result: TierResult, index: int) -> str:
    """The words that the word head names in the row's vector, or how many."""
    by_row = {} if report.named_words is None or report.is_estimate else report.named_words.by_row
    named = by_row.get(result.sample.row_keys()[index], [])
    if not report.reveal or not named:
        return f"; {len(named)} named by the word head" if named else ""
    return "; named by the word head: " + ", ".join(f"{escape(word)} {100 * p:.0f} %" for word, p in named[:NAMED])


def _below(result: TierResult, index: int, reveal: bool) -> str:
    return f"; recovered: <bdi>{escape(result.recovered.texts[index])}</bdi>" if reveal else ""
