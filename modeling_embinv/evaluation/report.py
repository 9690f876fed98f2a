"""An evaluation's rows: run, then printed as a table, written as JSON, drawn as plots."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from ..data.files import write_json
from ..diffusion_embinv import text_positions
from . import metrics
from .calibration import calibration_report
from .held_out import HeldOut, Measures, Recovered, Score

LENGTH_BOUNDS = (4, 8, 12, 16, 24, 32, 64, 128, 256, 512)
CALLS = {"feedback_calls": "encoder calls", "surrogate_calls": "surrogate calls"}
_PERCENT = ("token accuracy", "token F1", "ROUGE-L", "exact")
# in place of a split, where files of texts were scored
FILES = "files of texts"
# columns of a terminal that holds the table with its intervals
WITH_INTERVALS = 120
_CAPTIONS = {
    True: "95 % intervals",
    False: f"means alone; {WITH_INTERVALS} columns hold intervals and costs",
}
COLUMNS = ("token accuracy", "token F1", "ROUGE-L", "exact", "BLEU", "cosine")


@dataclass
class Row:
    """One line of the table: a method's scores over some of the texts.

    section: "inversion" (one row for each combination of settings), "floor", "part" or "length".
    """

    section: str
    name: str
    texts: int
    scores: dict[str, Score]
    num_forward_passes: int = 0
    texts_per_second: float | None = None
    feedback_calls: float = 0.0
    surrogate_calls: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """All rows, and what the first combination of settings shows token by token."""

    rows: list[Row]
    accuracy_by_position: list[float]
    calibration: dict[str, Any]
    samples: list[tuple[str, str]]

    def save(self, path: str | Path, model: str, split: str = FILES) -> None:
        """Everything as JSON, with the split of prepared pairs that was scored."""
        write_json(path, _without_nan({"model": model, "split": split, **asdict(self)}))

    def table(self, title: str, width: int = WITH_INTERVALS) -> Table:
        """The rows for a terminal; brackets hold 95 % intervals; a narrow one shows means without costs."""
        has_intervals = width >= WITH_INTERVALS
        columns = [name for name in COLUMNS if name in self.rows[0].scores]
        calls = [name for name in CALLS if any(getattr(row, name) for row in self.rows)]
        costs = ["passes", *(CALLS[name] for name in calls), "texts/s"] * has_intervals
        titles = "", "texts", *costs, *columns
        table = Table(*titles, title=escape(title), caption=_CAPTIONS[has_intervals])
        table.columns[0].overflow = "fold"
        if not has_intervals:
            table.box, table.padding, table.pad_edge = SIMPLE, (0, 1, 0, 0), False
        for _, rows in itertools.groupby(self.rows, key=lambda row: row.section):
            for row in rows:
                speed = "" if row.texts_per_second is None else f"{row.texts_per_second:.1f}"
                scores = cells(row.scores, columns, has_intervals)
                called = [f"{getattr(row, name):.0f}" for name in calls]
                cost = [str(row.num_forward_passes or ""), *called, speed] * has_intervals
                table.add_row(escape(row.name), str(row.texts), *cost, *scores)
            table.add_section()
        return table


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a table for a README or a model card."""
    columns = [name for name in COLUMNS if name in rows[0].scores]
    lines = [["", "texts", *(f"{name} %" if name in _PERCENT else name for name in columns)]]
    for row in rows:
        scores = cells(row.scores, columns)
        lines.append([f"**{row.name}**" if row.section == "inversion" else row.name, str(row.texts), *scores])
    return markdown_table(lines)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Cells as a Markdown table; the first line is the head."""
    head, *body = lines
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in (head, ["---"] * len(head), *body))
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def cells(scores: dict[str, Score], columns: Sequence[str], intervals: bool = True) -> list[str]:
    """The scores of a row as a table shows them; what it has not is a blank."""
    digits = {name: 2 if name == "cosine" else 1 for name in columns}
    if intervals:
        return [scores[name].shown(digits[name]) if name in scores else "" for name in columns]
    return [f"{scores[name].mean:.{digits[name]}f}" if name in scores else "" for name in columns]


def sweep(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations of settings; a name without values is left to the model."""
    given = {name: options for name, options in values.items() if options}
    return [dict(zip(given, combination, strict=True)) for combination in itertools.product(*given.values())]


def evaluate(
    held_out: HeldOut,
    combinations: list[dict[str, Any]],
    parts: Sequence[str] | None = None,
    floors: bool = True,
    training_pairs: Any = None,
    batch_size: int = 64,
    on_row: Callable[[Row], None] | None = None,
) -> Report:
    """Invert the held-out vectors under each combination of `generate`'s settings, and score what comes back.

    The floors, the rows by part and by length, and the report's details belong to the first combination.

    Args:
        parts: (N,) the part of the corpus that each text is from.
        training_pairs: for the floor "nearest training text".
        on_row: called with the row of each combination, as soon as it is measured.

    Raises:
        EmbInvError: for the first impossible combination, before any is run.
    """
    for settings in combinations:
        held_out.check(**settings)
    rows, first = [], None
    for settings in combinations:
        inverted = held_out.invert(batch_size=batch_size, progress=_name(settings), **settings)
        measured = held_out.measure(inverted)
        first = first or (inverted, measured)
        rows.append(_row("inversion", _name(settings), inverted, measured, settings))
        if on_row is not None:
            on_row(rows[-1])
    assert first is not None  # a sweep has a combination
    recovered, measures = first
    if floors:
        for name, stand_in in _floors(held_out, combinations[0], training_pairs, batch_size).items():
            rows.append(_row("floor", f"floor: {name}", stand_in, held_out.measure(stand_in), combinations[0]))
    for section, groups in (("part", _by_part(parts)), ("length", _by_length(held_out.lengths))):
        if len(groups) > 1:
            rows += [Row(section, name, int(mask.sum()), measures.scores(mask)) for name, mask in groups.items()]
    accuracy, _ = metrics.accuracy_by_position(recovered.ids, held_out.input_ids, held_out.end)
    assert recovered.confidence is not None  # floors alone have none
    # where `max_length` cut a text off, nobody wrote its end
    shown = text_positions(recovered.ids, held_out.end) & (recovered.confidence > 0)
    correct = (recovered.ids == held_out.input_ids)[shown]
    samples = list(zip(held_out.texts, recovered.texts, strict=True))
    return Report(rows, accuracy.tolist(), calibration_report(recovered.confidence[shown], correct), samples[:20])


def _floors(held_out: HeldOut, settings: dict[str, Any], training_pairs: Any, batch_size: int) -> dict[str, Recovered]:
    settings = {**settings, "batch_size": batch_size}
    other = held_out.other_text(progress="floor: vector of another text", **settings)
    floors = {} if other is None else {"vector of another text": other}
    floors["no vector"] = held_out.no_vector(progress="floor: no vector", **settings)
    floors["random tokens"] = held_out.random_tokens()
    if training_pairs is not None:
        floors["nearest training text"] = held_out.nearest_training_text(training_pairs)
    return floors


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for a mean over nothing."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _name(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "inversion"


def _row(section: str, name: str, recovered: Recovered, measures: Measures, settings: dict[str, Any]) -> Row:
    count = len(recovered.texts)
    speed = count / recovered.seconds if recovered.seconds else None
    calls = {name: getattr(recovered, name) for name in CALLS}
    passes = recovered.num_forward_passes
    return Row(section, name, count, measures.scores(), passes, speed, **calls, settings=settings)


def _by_part(parts: Sequence[str] | None) -> dict[str, np.ndarray]:
    names = np.array(parts if parts is not None else [])
    return {str(name): names == name for name in dict.fromkeys(names.tolist())}


def _by_length(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of the texts of 1–4, 5–8 … tokens; empty groups are left out."""
    groups, low = {}, 1
    for high in LENGTH_BOUNDS:
        mask = (lengths >= low) & (lengths <= high)
        if mask.any():
            groups[f"{low}–{high} tokens"] = mask
        low = high + 1
    return groups
