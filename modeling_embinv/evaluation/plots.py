"""Plots of an evaluation (the `plots` extra: matplotlib)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: a machine without a screen must do
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from ..data.files import replaced
from .report import Report, Row

SCORES = ("token F1", "exact", "BLEU")


def save_plots(report: Report, folder: str | Path) -> list[Path]:
    """Reliability, accuracy by position, scores by length, scores by passes if several were tried: the files.

    Raises:
        FullDiskError: see `writing`; an older plot of that name is as it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [row for row in report.rows if row.section == "length"]
    passes = [row for row in report.rows if row.section == "inversion"]
    plots: dict[str, tuple[Callable[[Any, Any], None], Any]] = {
        "reliability": (_reliability, report.calibration),
        "positions": (_positions, report.accuracy_by_position),
    }
    if lengths:
        plots["lengths"] = (_lengths, lengths)
    if len({row.num_forward_passes for row in passes}) > 1:
        plots["passes"] = (_passes, passes)
    return [_save(folder / f"{name}.png", draw, values) for name, (draw, values) in plots.items()]


def _save(path: Path, draw: Callable[[Any, Any], None], values: Any) -> Path:
    figure, axes = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
    draw(axes, values)
    try:
        with replaced(path) as new:
            figure.savefig(new, format="png", dpi=120)
    finally:
        plt.close(figure)
    return path


def _reliability(axes: Axes, calibration: dict[str, Any]) -> None:
    filled = [index for index, count in enumerate(calibration["count"]) if count]
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect")
    axes.plot(
        [calibration["confidence"][index] for index in filled],
        [calibration["accuracy"][index] for index in filled],
        marker="o",
        label=f"expected error {100 * calibration['expected_calibration_error']:.1f} %",
    )
    axes.set(xlabel="confidence", ylabel="share of tokens that are right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _positions(axes: Axes, accuracy: list[float]) -> None:
    axes.plot(range(1, len(accuracy) + 1), [100 * share for share in accuracy], marker="o")
    axes.set(xlabel="position", ylabel="token accuracy %", ylim=(0, 100))


def _lengths(axes: Axes, rows: list[Row]) -> None:
    _with_intervals(axes, list(range(len(rows))), rows)
    axes.set_xticks(range(len(rows)), [row.name.removesuffix(" tokens") for row in rows])
    axes.set(xlabel="tokens of the text")


def _passes(axes: Axes, rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda row: row.num_forward_passes)
    _with_intervals(axes, [row.num_forward_passes for row in rows], rows, line="none")
    axes.set(xlabel="forward passes", xscale="log")


def _with_intervals(axes: Axes, x: list[int], rows: list[Row], line: str = "-") -> None:
    for name in SCORES:
        known = [(place, row.scores[name]) for place, row in zip(x, rows, strict=True) if name in row.scores]
        if not known:  # no BLEU of short texts
            continue
        places, scores = zip(*known, strict=True)
        means = [score.mean for score in scores]
        # the percentile interval of a skewed score need not hold its mean
        errors = [[max(s.mean - s.low, 0) for s in scores], [max(s.high - s.mean, 0) for s in scores]]
        axes.errorbar(places, means, yerr=errors, marker="o", linestyle=line, capsize=3, label=name)
    axes.set(ylim=(0, None))
    axes.legend()


def _line(axes: Axes, rows: list[dict[str, Any]], name: str) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)
