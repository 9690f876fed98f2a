"""What leaks as HTML: two numbers, what the protection costs the search, the kinds of words, and each line."""

from html import escape

from leaks import ATTACKERS, Leaks
from parts import table_html
from recover_html import WITH_ENCODER, marked_html, percent_of
from words import LEAKED, by_kind

LEGEND = (
    '<p class="legend"><mark class="leaked">leaked</mark> by the vector alone; <mark class="leaked-encoder">leaked'
    '</mark> with the encoder only; <mark class="close">close</mark>, another form of the word; '
    '<mark class="lost">not recovered</mark></p>'
)


def leaks_html(leaks: Leaks) -> str:
    """All of it, as far as it has come."""
    parts = [_headline(leaks), f'<p class="search">{search_text(leaks)}</p>']
    if leaks.steps[0]:
        parts += [_kinds(leaks), LEGEND, _lines(leaks)]
    if leaks.is_done:
        parts.append(f'<p class="costs">{leaks.seconds:.1f} seconds.</p>')
    return f'<section class="leaks" data-done="{str(leaks.is_done).lower()}">{"".join(parts)}</section>'


def counter_html(leaks: Leaks) -> str:
    """How far it has come, and what a visitor should know of the lines."""
    tried = min(map(len, leaks.recovered.values()))
    notes = [
        f"Line {number}: {note}" for number, line in enumerate(leaks.lines, start=1) for note in line.notes
    ]  # fmt: skip
    state = "" if leaks.is_done else f'<p class="note">{tried} of {len(leaks.lines)} lines attacked.</p>'
    return state + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def search_text(leaks: Leaks) -> str:
    """What the protection costs the search that the vectors were made for."""
    return (
        f"What the stored vectors are still good for: of the ten texts nearest to each line, a search finds "
        f"<b>{percent_of(leaks.recall)}</b> (recall@10, among {leaks.num_background:,} other sentences; mean cosine "
        f"with the true vectors {leaks.cosine:.3f})."
    )


def _headline(leaks: Leaks) -> str:
    """The two numbers."""
    parts = []
    for judge in leaks.recovered:
        found, total = leaks.counts(judge)
        parts.append(f"{ATTACKERS[judge]} <b>{found} of {total}</b>")
    if not any(leaks.counts(judge)[1] for judge in leaks.recovered):
        return f'<p class="headline">{"There are no content words in this text." * bool(leaks.steps[0])}</p>'
    return f'<p class="headline">Content words that come back: {"; ".join(parts)}.</p>'


def _kinds(leaks: Leaks) -> str:
    by_judge = {judge: by_kind(leaks.words(judge)) for judge in leaks.recovered}
    kinds = dict.fromkeys(kind for found in by_judge.values() for kind in found)
    rows = []
    for kind in kinds:
        cells = [by_judge[judge].get(kind, (0, 0)) for judge in leaks.recovered]
        rows.append([kind, *(f"{found} of {total}" for found, total in cells)])
    columns = ["Words", *(ATTACKERS[judge] for judge in leaks.recovered)]
    return table_html("Recovered content words by kind", columns, rows)


def _lines(leaks: Leaks) -> str:
    """Each line, what leaked in it marked, above what the attackers recovered."""
    parts = []
    for index, line in enumerate(leaks.lines):
        texts = {judge: found[index] for judge, found in leaks.recovered.items() if index < len(found)}
        if not texts:
            break
        words = {judge: leaks.words(judge)[index] for judge in texts}
        first, *rest = words.values()
        if rest:  # what the encoder alone brings is marked by itself
            first = [
                with_encoder._replace(state=WITH_ENCODER) if with_encoder.state == LEAKED != alone.state else alone
                for alone, with_encoder in zip(first, rest[0], strict=True)
            ]
        found = "".join(f"<dt>{ATTACKERS[judge]}</dt><dd>{escape(text)}</dd>" for judge, text in texts.items())
        parts.append(f'<li><p class="original">{marked_html(line.text, first)}</p><dl>{found}</dl></li>')
    return f'<ol class="lines">{"".join(parts)}</ol>'
