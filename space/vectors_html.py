"""Inverted vectors as HTML: a table with cosine and verdict, and the same as a file."""

from html import escape
from urllib.parse import quote

from parts import done_html, notes_html, table_html
from vector_table import Row, Table

from modeling_embinv.verdicts_embinv import TEXT_VERDICTS

COLUMNS = ("Row", "Id", "Text", "Cosine", "Verdict")


def vectors_html(table: Table) -> str:
    """The table, as far as it has come; whose vectors they are not; a link to the file."""
    parts = []
    if table.warning:
        parts.append(f'<p class="refused">{escape(table.warning)}</p>')
    if table.rows:
        has_ids = any(row.id is not None for row in table.rows)
        columns = [name for name in COLUMNS if has_ids or name != "Id"]
        rows = [
            [str(row.row), *([escape(row.id or "")] * has_ids), _text(row), f"{row.cosine:.3f}",
             f"{row.verdict}: {TEXT_VERDICTS[row.verdict]}"]
            for row in table.rows
        ]  # fmt: skip
        parts.append(table_html(f"Texts of {table.given.source}", columns, rows, "wide"))
        parts.append(_download(table))
    if table.is_done:
        parts.append(f'<p class="costs">{table.seconds:.1f} seconds.</p>')
    return f'<section class="vectors" data-done="{str(table.is_done).lower()}">{"".join(parts)}</section>'


def counter_html(table: Table, notes: list[str]) -> str:
    """How far it has come, which source is read, and what is left out."""
    told = notes_html([*notes, *table.notes])
    state = f"{len(table.rows)} of {len(table.given.rows)} vectors inverted."
    return told + (done_html() if table.is_done else notes_html([state]))


def _text(row: Row) -> str:
    return f"<i>{escape(row.text)}</i>" if row.verdict == "unrelated" else escape(row.text)


def _download(table: Table) -> str:
    """A link that holds the file itself: the server keeps nothing."""
    data = quote(table.json_lines())
    return (
        f'<p><a class="download" download="recovered.jsonl" href="data:application/x-ndjson;charset=utf-8,{data}">'
        f"Download {len(table.rows)} {'row' if len(table.rows) == 1 else 'rows'} (JSON lines)</a></p>"
    )
