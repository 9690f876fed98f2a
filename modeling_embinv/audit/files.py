"""The files of a report, all of which are replaced together."""

import json
from pathlib import Path

from ..data.files import json_text, write_texts
from .hits import hit_rows
from .page import page
from .report import Report
from .sarif import sarif
from .summary import findings

FILES = ("index.html", "report.json", "hits.jsonl", "report.sarif")
# of a finding, what is not the same in every report
_FINDING = ("rule", "title", "severity", "sentence")


def write_report(report: Report, folder: Path) -> None:
    """Writes `FILES`.

    Raises:
        FullDiskError: see `writing`; an older report in the folder is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = [{name: getattr(one, name) for name in _FINDING} for one in findings(report)]
    named = {} if report.named_words is None else report.named_words.by_row
    # known pairs change the vectors that their attacker inverts, and the words are those of the vectors as they are
    rows = [
        row
        for result in report.tiers
        for row in hit_rows(result, report.reveal, named if result.tier.name != "pairs" else None)
    ]
    rows += [{"planted": True, **row} for result in report.planted for row in hit_rows(result, report.reveal)]
    texts = {
        # paths in another encoding may stand in the page
        "index.html": page(report).encode("utf-8", "replace").decode("utf-8"),
        "report.json": json_text({**report.as_dict(), "findings": found}),
        "hits.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "report.sarif": json_text(sarif(report)),
    }
    write_texts({folder / name: texts[name] for name in FILES})
