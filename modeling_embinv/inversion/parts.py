"""A long run's results on disk: JSON-lines files in a folder beside the output, which become the output at the end."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from ..data.files import short_names, writing
from ..data.parts import LOCK, PartFolder, whole
from ..errors_embinv import EmbInvError

_OUT_KINDS = (".jsonl", ".parquet")
_PARTS_PER_ROW_GROUP = 16


def check_out(out: Path) -> None:
    """Checks that results can be written to a file of this name.

    Raises:
        EmbInvError: `out` ends in neither `.jsonl` nor `.parquet`, or is a folder.
    """
    if out.is_dir():
        raise EmbInvError(f"{out} is a folder: give the name of a {' or '.join(_OUT_KINDS)} file.")
    if out.suffix.lower() not in _OUT_KINDS:
        raise EmbInvError(f"the output must end in {' or '.join(_OUT_KINDS)}, got {out}.")


def count_rows(out: Path) -> int:
    """The rows of a finished output.

    Raises:
        EmbInvError: it is no parquet file in spite of its name.
    """
    if out.suffix.lower() == ".parquet":
        try:
            return int(pq.read_metadata(out).num_rows)
        except pa.ArrowInvalid as error:
            raise EmbInvError(f"{out} exists already, and is no parquet file: choose another output") from error
    with out.open("rb") as lines:
        return sum(1 for _ in lines)


class ResultParts:
    """The folder `out` + ".parts": finished parts under their final names, and what run they belong to in run.json.

    Args:
        out: the output that the parts will become.
        same: as of `PartFolder`.

    Raises:
        EmbInvError: see `check_out`.
    """

    def __init__(self, out: Path, same: Callable[[str, Any, Any], bool]) -> None:
        check_out(out)
        self.out, self.parts = out, PartFolder(out.with_name(f"{out.name}.parts"), same=same)

    def open(self, run: dict[str, Any]) -> None:
        """Begins the folder of a run, or checks that the parts in it were made by the same one.

        Args:
            run: JSON values that identify the run.

        Raises:
            EmbInvError: naming what differs, or a record that is damaged.
        """
        record, now = self.parts.record, json.loads(json.dumps(run))
        before = {}
        if record.exists():
            with whole(record, "delete its folder to start over"):
                before = _object("it", json.loads(record.read_text(encoding="utf-8")))
        self.parts.check_run(before, now, has_parts=bool(self.finished()))
        self.parts.note(now)

    def finished(self) -> set[str]:
        """The names of all finished parts."""
        return {path.name for path in self.parts.folder.glob("*.jsonl")}

    def write(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Writes one part, `name` ending in `.jsonl`."""
        with self.parts.written(name) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def verdicts(self, parts: Mapping[str, int], schema: pa.Schema) -> Counter[str]:
        """How many rows of some parts have which verdict; rows without one do not count.

        Args:
            parts: by name, the rows that each must hold.
            schema: of the rows.

        Raises:
            EmbInvError: naming a part that is damaged.
        """
        counts: Counter[str] = Counter()
        for name, size in parts.items():
            path = self.parts.folder / name
            with whole(path):
                counts.update(verdict for row in _rows(path, size, schema) if (verdict := row["verdict"]))
        return counts

    def merge(self, names: list[str], schema: pa.Schema) -> None:
        """Joins the named parts, in this order, to the output in one step.

        Raises:
            FullDiskError: see `writing`; the parts are kept.
        """
        folder = self.parts.folder
        merged, parts = folder / "merged", [folder / name for name in names]
        try:
            with writing(self.out):
                if self.out.suffix.lower() == ".parquet":
                    _join_as_parquet(parts, merged, schema)
                else:
                    _join(parts, merged)
                merged.replace(self.out)
        finally:
            merged.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes what is in the folder, but for the lock of this run."""
        for path in self.parts.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def remove(self) -> None:
        """Removes the folder, unless another run has begun there."""
        with suppress(OSError):
            self.parts.folder.rmdir()


def _rows(path: Path, size: int, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a part; an error says what is wrong where they are not `size` whole lines of the schema."""
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    rows = [_object(f"row {index}", json.loads(line)) for index, line in enumerate(lines)]
    if rest:
        raise ValueError("its last line has no end")
    if len(rows) != size:
        raise ValueError(f"{len(rows)} rows in place of {size}")
    for index, row in enumerate(rows):
        if missing := [name for name in schema.names if name not in row]:
            raise ValueError(f"row {index} has no {short_names(missing)}")
        if others := [name for name in row if name not in schema.names]:
            raise ValueError(f"row {index} has {short_names(others)} as well")
    pa.Table.from_pylist(rows, schema)  # raises where a value is of another type
    return rows


def _object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return value


def _join(parts: list[Path], target: Path) -> None:
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, file)


def _join_as_parquet(parts: list[Path], target: Path, schema: pa.Schema) -> None:
    options = pyarrow.json.ParseOptions(explicit_schema=schema)
    with pq.ParquetWriter(target, schema) as writer:
        for start in range(0, len(parts), _PARTS_PER_ROW_GROUP):
            group = parts[start : start + _PARTS_PER_ROW_GROUP]
            writer.write_table(pa.concat_tables(pyarrow.json.read_json(part, parse_options=options) for part in group))
