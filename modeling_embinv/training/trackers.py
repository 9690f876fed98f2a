"""Metrics as JSON lines."""

import json
import math
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from ..data.files import write_text


class JSONLinesTracker(GeneralTracker):  # type: ignore[misc]  # accelerate has no types
    """Metrics as one JSON object a line; needs no package."""

    name = "jsonl"
    requires_logging_directory = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def tracker(self) -> Path:
        """What accelerate hands out as the tracker itself: the file."""
        return self.path

    @on_main_process  # type: ignore[untyped-decorator]  # accelerate has no types
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Append a line of the values and the step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    @on_main_process  # type: ignore[untyped-decorator]  # accelerate has no types
    def rewind(self, step: int) -> None:
        """Drop the lines after `step`, which a run that goes on from there writes again; −1 drops all."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(f"{line}\n" for line in lines if _step_of_line(line) <= step))

    @on_main_process  # type: ignore[untyped-decorator]  # accelerate has no types
    def put_aside(self, checkpoint: Path) -> None:
        """Move the log into the newest checkpoint of a run that is started over: both go, or go on, together."""
        aside = checkpoint / self.path.name
        if self.path.exists() and not aside.exists():  # else the log here is of a start that saved nothing
            self.path.replace(aside)

    @on_main_process  # type: ignore[untyped-decorator]  # accelerate has no types
    def take_back(self, checkpoint: Path) -> None:
        """The inverse of `put_aside`, where the run of the checkpoint goes on."""
        aside = checkpoint / self.path.name
        if aside.exists():
            aside.replace(self.path)


def _step_of_line(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a kill has torn it
        return math.inf
