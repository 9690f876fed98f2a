"""A long run's results on disk: JSON-lines files in a folder beside the output, which become the output at the end."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from ..errors_embinv import EmbInvError

OUT_KINDS = (".jsonl", ".parquet")
_PARTS_PER_ROW_GROUP = 16


class PartFolder:
    """The folder `out` + ".parts": finished parts under their final names, and what run they belong to in run.json.

    Every file gets its name when it is complete and on the disk, so a file with a part's name is a whole part.

    Args:
        out: the output that the parts will become.

    Raises:
        EmbInvError: `out` ends in neither `.jsonl` nor `.parquet`, or is a folder.
    """

    def __init__(self, out: Path):
        if out.suffix not in OUT_KINDS or out.is_dir():
            raise EmbInvError(f"{out}: results are written to a file that ends in {' or '.join(OUT_KINDS)}")
        self.out, self.folder = out, out.with_name(out.name + ".parts")

    def open(self, run: dict):
        """Begins the folder of a run, or checks that the parts in it were made by the same one.

        Args:
            run: JSON values that identify the run.

        Raises:
            EmbInvError: naming what differs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path, now = self.folder / "run.json", json.loads(json.dumps(run))
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        changed = [key for key in now if before.get(key) != now[key]]
        if changed and self.finished():
            details = "; ".join(f"{key} was {before.get(key)}, now {now[key]}" for key in changed)
            raise EmbInvError(
                f"{self.folder} holds the parts of another run: {details}; "
                "choose another output, or delete the folder to start over"
            )
        self._write(path.name, [json.dumps(now)])

    def finished(self) -> set[str]:
        """The names of all finished parts."""
        return {path.name for path in self.folder.glob("*.jsonl")}

    def write(self, name: str, rows: Iterable[dict]):
        """Writes one part, `name` ending in `.jsonl`."""
        self._write(name, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _write(self, name: str, lines: Iterable[str]):
        partial = self.folder / f"{name}.partial"
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / name)

    def merge(self, names: list[str], schema: pa.Schema):
        """Joins the named parts, in this order, to the output in one step, and removes the folder."""
        merged, parts = self.folder / "merged", [self.folder / name for name in names]
        if self.out.suffix == ".parquet":
            _join_as_parquet(parts, merged, schema)
        else:
            _join(parts, merged)
        os.replace(merged, self.out)
        shutil.rmtree(self.folder)


def _join(parts: list[Path], target: Path):
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, file)


def _join_as_parquet(parts: list[Path], target: Path, schema: pa.Schema):
    options = pyarrow.json.ParseOptions(explicit_schema=schema)
    with pq.ParquetWriter(target, schema) as writer:
        for start in range(0, len(parts), _PARTS_PER_ROW_GROUP):
            group = parts[start : start + _PARTS_PER_ROW_GROUP]
            writer.write_table(pa.concat_tables(pyarrow.json.read_json(part, parse_options=options) for part in group))
