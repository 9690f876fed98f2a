"""All settings, the comparison of strategies, and mixing, as HTML."""

from collections.abc import Sequence
from html import escape

from comparing import Compared, Comparison, Mixed
from inverter import Draft, Result
from parts import TINT_LEGEND, table_html
from recover_html import details_html, newest_html, percent_of, replay_html, verdict_html

WIDTH, HEIGHT = 120, 32  # of a curve, pixels


def inverted_html(drafts: Sequence[Draft], result: Result | None) -> str:
    """A text as it is written, and at the end its verdict and figures."""
    if result is None:
        return f'<section class="recovery" data-done="false">{newest_html(drafts)}</section>'
    verdict = f'<p class="headline">Verdict: {verdict_html(result)}.</p>'
    parts = [replay_html(drafts, result), verdict, TINT_LEGEND, details_html(drafts[-1], result)]
    return f'<section class="recovery" data-done="true">{"".join(parts)}</section>'


def comparison_html(found: Comparison) -> str:
    """A row for each strategy, with the curve of its cosine."""
    columns = ("Strategy", "Text", "Cosine", "Cosine after each pass", "Tokens in place", "Passes", "Milliseconds")
    rows = [
        [
            f"<code>{row.strategy}</code>", escape(row.text), f"{row.cosines[-1]:.3f}", curve_html(row),
            percent_of(row.accuracies[-1]), str(row.passes), f"{1000 * row.seconds:.0f}",
        ]
        for row in found.rows
    ]  # fmt: skip
    table = table_html("The same vector, by each strategy", columns, rows, "wide")
    return f'<section class="compared" data-done="{str(found.is_done).lower()}">{table}</section>'


def curve_html(row: Compared) -> str:
    """The cosine after each pass, from 0 to 1, as a line."""
    last = max(row.passes - 1, 1)
    points = " ".join(
        f"{index * WIDTH / last:.1f},{HEIGHT - max(cosine, 0) * HEIGHT:.1f}"
        for index, cosine in enumerate(row.cosines)
    )
    told = f"from {row.cosines[0]:.2f} to {row.cosines[-1]:.2f} in {row.passes} passes"
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="2"></polyline>'
    return f'<svg class="curve" viewBox="0 -2 {WIDTH} {HEIGHT + 4}" role="img" aria-label="{told}">{line}</svg>'


def mixed_html(rows: Sequence[Mixed]) -> str:
    """A row for each point between the two vectors."""
    columns = ("Share of the second", "Text at that point", "Cosine with the first", "Cosine with the second")
    cells = [
        [percent_of(row.share), escape(row.text), f"{row.cosine_with_first:.2f}", f"{row.cosine_with_second:.2f}"]
        for row in rows
    ]
    table = table_html("Texts between two vectors", columns, cells, "wide")
    return f'<section class="mixed" data-done="true">{table}</section>'
