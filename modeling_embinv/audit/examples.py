"""Rows of which much came back, as a reader of the report sees them."""

from collections.abc import Iterator
from html import escape

from ..progress.rates import counted
from .hits import BAR, LOST, hits, row_name, shortened
from .html import isolated
from .report import Report
from .tiers import TierResult
from .words import plain, word_spans, words

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
        is_back = word in back
        shown = escape(text[start:end]) if reveal else BAR if is_back else LOST
        pieces.append(escape(text[position:start]) if reveal else " ")
        pieces.append(f"<mark>{shown}</mark>" if is_back else f'<span class="lost">{shown}</span>')
        position = end
    kind = "" if reveal else " class=hidden"
    return f"<bdi{kind}>{''.join(pieces)}{escape(text[position:]) if reveal else ''}</bdi>{rest}"


def _named(report: Report, result: TierResult, index: int) -> str:
    """The words that the word head names in the row's vector; or how many, and how many of them the text holds."""
    by_row = {} if report.named_words is None or report.is_estimate else report.named_words.by_row
    named = by_row.get(result.sample.row_keys()[index], [])
    if not named:
        return ""
    if not report.reveal:
        right = {plain(word) for word, _ in named} & set(words((result.sample.texts or [])[index]))
        return f"; the word head names {counted(len(named), 'word')}, {len(right)} of them right"
    return "; named by the word head: " + ", ".join(f"{escape(word)} {100 * p:.0f} %" for word, p in named[:NAMED])


def _below(result: TierResult, index: int, reveal: bool) -> str:
    return f"; recovered: <bdi>{escape(result.recovered.texts[index])}</bdi>" if reveal else ""
