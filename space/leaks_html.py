"""What leaks as HTML: two numbers, what the protection costs the search, the kinds of words, and each line."""

from html import escape

from leaks import ATTACKERS, FIGURES, Leaks
from parts import done_html, notes_html, table_html
from recover_html import WITH_ENCODER, marked_html, percent_of
from words import LEAKED, content_words

from modeling_embinv.audit.figures import Figure
from modeling_embinv.audit.report import FEWEST
from modeling_embinv.presets_embinv import PRESETS

# by judge and name
Figures = dict[str, dict[str, Figure]]
WORDS = FIGURES["words"]
FLOOR = (
    '<p class="legend">Floor: the better of two guesses that do not invert the vector, another line’s recovered text '
    "and the nearest public sentence.</p>"
)
LEGEND = (
    '<p class="legend"><mark class="leaked">leaked</mark> by the vector alone; <mark class="leaked-encoder">leaked'
    '</mark> with the encoder only; <mark class="close">close</mark>, another form of the word; '
    '<mark class="lost">not recovered</mark></p>'
)


def leaks_html(leaks: Leaks) -> str:
    """All of it, as far as it has come."""
    figures = {judge: leaks.figures(judge) for judge in leaks.recovered}
    parts = [_headline(leaks, figures), f'<p class="search">{search_text(leaks)}</p>']
    if leaks.steps[0]:
        parts += [_figures(figures), LEGEND, _lines(leaks)]
    if leaks.is_done:
        parts.append(f'<p class="costs">{leaks.seconds:.1f} seconds.</p>')
    return f'<section class="leaks" data-done="{str(leaks.is_done).lower()}">{"".join(parts)}</section>'


def counter_html(leaks: Leaks, preset: str) -> str:
    """How far it has come, and what a visitor should know of the lines and of the search."""
    tried = min(map(len, leaks.recovered.values()))
    notes = [f"Line {number}: {note}" for number, line in enumerate(leaks.lines, start=1) for note in line.notes]
    if PRESETS[preset].feedback is None and len(leaks.recovered) > 1:
        notes.append(f"The search “{preset}” checks no text, so that both attackers write the same.")
    state = done_html() if leaks.is_done else notes_html([f"{tried} of {len(leaks.lines)} lines attacked."])
    return state + notes_html(notes)


def search_text(leaks: Leaks) -> str:
    """What the protection costs the search that the vectors were made for."""
    return (
        f"What the stored vectors are still good for: of the ten texts nearest to each line, a search finds "
        f"<b>{percent_of(leaks.recall)}</b> (recall@10, among {leaks.num_public:,} public sentences; mean cosine "
        f"with the true vectors {leaks.cosine:.3f})."
    )


def _headline(leaks: Leaks, figures: Figures) -> str:
    """The two numbers."""
    words = {judge: found.get(WORDS) for judge, found in figures.items()}
    parts = [
        f"{ATTACKERS[judge]} <b>{figure.hits:.0f} of {figure.count}</b>" for judge, figure in words.items() if figure
    ]
    if not parts:
        return f'<p class="headline">{"There are no content words in this text." * bool(leaks.steps[0])}</p>'
    return f'<p class="headline">Content words that come back: {"; ".join(parts)}.</p>'


def _figures(figures: Figures) -> str:
    """A row for each figure: both attackers, with the audit's intervals, and the higher floor."""
    rows = []
    for name in dict.fromkeys(name for found in figures.values() for name in found):
        own = [found.get(name) for found in figures.values()]
        floor = max((value for figure in own if figure for value in figure.floors.values()), default=0.0)
        rows.append([name.capitalize(), *map(_cell, own), percent_of(floor)])
    columns = ["Came back", *(ATTACKERS[judge] for judge in figures), "floor"]
    return table_html(f"What came back; 95 % intervals in brackets, from {FEWEST} words on", columns, rows) + FLOOR


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if figure.count < FEWEST:
        return f"{figure.hits:.0f} of {figure.count}"
    interval = f"{100 * figure.low:.0f} to {100 * figure.high:.0f}"
    return f"{figure.hits:.0f} of {figure.count}, {percent_of(figure.value)} ({interval})"


def _lines(leaks: Leaks) -> str:
    """Each line, what leaked in it marked, above what the attackers recovered."""
    parts = []
    for index, line in enumerate(leaks.lines):
        texts = {judge: found[index] for judge, found in leaks.recovered.items() if index < len(found)}
        if not texts:
            break
        words = {judge: content_words(line.text, text) for judge, text in texts.items()}
        first, *rest = words.values()
        if rest:  # what the encoder alone brings is marked by itself
            first = [
                with_encoder._replace(state=WITH_ENCODER) if with_encoder.state == LEAKED != alone.state else alone
                for alone, with_encoder in zip(first, rest[0], strict=True)
            ]
        found = "".join(f"<dt>{ATTACKERS[judge]}</dt><dd>{escape(text)}</dd>" for judge, text in texts.items())
        parts.append(f'<li><p class="original">{marked_html(line.text, first)}</p><dl>{found}</dl></li>')
    return f'<ol class="lines">{"".join(parts)}</ol>'
