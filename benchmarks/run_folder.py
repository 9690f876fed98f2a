"""The folder of a benchmark that can be killed and called again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling_embinv.data.files import write_json


def begin_run(folder: Path, measured: Mapping[str, Any]) -> None:
    """Notes in the folder what is measured.

    Raises:
        SystemExit: when something else was measured there, whose figures would be shown as this run's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "run.json"
    before = json.loads(record.read_text(encoding="utf-8")) if record.exists() else measured
    if changed := [name for name, value in measured.items() if before.get(name) != value]:
        raise SystemExit(f"{folder} is of a run with other {' and '.join(changed)}: remove it, or give another --out.")
    write_json(record, measured)
