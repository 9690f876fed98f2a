"""The files of a report, each written whole."""

import json
from pathlib import Path

from ..data.files import write_json, write_text
from .hits import hit_rows
from .page import page
from .report import Report
from .sarif import sarif
from .summary import findings

FILES = ("index.html", "report.json", "hits.jsonl", "report.sarif")
# of a finding, what is not the same in every report
_FINDING = ("rule", "title", "severity", "sentence")


def write_report(report: Report, folder: Path) -> None:
    """Writes `FILES`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [{name: getattr(one, name) for name in _FINDING} for one in findings(report)]
    write_json(folder / "report.json", {**report.as_dict(), "findings": found})
    write_json(folder / "report.sarif", sarif(report))
    named = {} if report.named_words is None else report.named_words.by_row
    # known pairs change the vectors that their attacker inverts, and the words are those of the vectors as they are
    rows = [
        row
        for result in report.tiers
        for row in hit_rows(result, report.reveal, named if result.tier.name != "pairs" else None)
    ]
    rows += [{"planted": True, **row} for result in report.planted for row in hit_rows(result, report.reveal)]
    write_text(folder / "hits.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    # paths in another encoding may stand in the page
    write_text(folder / "index.html", page(report).encode("utf-8", "replace").decode("utf-8"))
