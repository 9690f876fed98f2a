"""The folder of a long run: finished parts, and what run they belong to; killed and called again, it goes on there."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from ..errors_embinv import EmbInvError
from .files import json_text, one_line, writing

# held by the run that writes to a folder
LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to `folder`, which is made; a run that was killed keeps nobody.

    Raises:
        EmbInvError: another run writes there.
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise EmbInvError(
            f"{folder}: another run is writing there. Wait for its end, or choose another output."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file; a free lock that lies there stops nobody
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


@contextmanager
def whole(path: Path, advice: str = "delete it and run again") -> Iterator[None]:
    """Says which file is damaged and what to do about it, where what is inside cannot read it."""
    try:
        yield
    except (EOFError, OverflowError, ValueError, pa.ArrowException) as error:
        raise EmbInvError(f"{path} is damaged ({one_line(error)}): {advice}.") from error


def _are_equal(_: str, left: Any, right: Any) -> bool:
    return bool(left == right)


class PartFolder:
    """Files that each get their name when they are complete and on the disk, and a record of the run in JSON.

    Args:
        folder: made when the first file is written.
        record: the file of that name holds what identifies the run, and whatever else the run notes about itself.
        same: whether two values of a setting, given its name, are equal.
    """

    def __init__(
        self, folder: Path, record: str = "run.json", same: Callable[[str, Any, Any], bool] = _are_equal
    ) -> None:
        self.folder, self.record, self._same = folder, folder / record, same

    def check_run(self, before: Mapping[str, Any], now: Mapping[str, Any], has_parts: bool) -> bool:
        """Whether the run of a record is this one.

        Args:
            before: the record. now: JSON values that identify this run.
            has_parts: whether another run has left parts, which must not be mixed with this one's.

        Raises:
            EmbInvError: naming what differs, if there are parts.
        """
        changed = [key for key, value in now.items() if not self._same(key, before.get(key), value)]
        if changed and has_parts:
            details = "; ".join(f"{key} was {before.get(key)}, now {now[key]}" for key in changed)
            raise EmbInvError(
                f"{self.folder} was begun with other arguments: {details}; choose another output, or delete the "
                "folder to start over"
            )
        return not changed

    @contextmanager
    def written(self, name: str, is_shared: bool = False) -> Iterator[Path]:
        """A path for the content of the file `name` (`a.txt`, or `train/a.txt`), which it becomes at the end.

        is_shared: other processes may write the same content at the same time, each under a name of its own.

        Raises:
            FullDiskError: see `writing`.
        """
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        process = f".{os.getpid()}" if is_shared else ""
        partial = target.with_name(f"{target.name}{process}.partial")
        with writing(target):
            yield partial
            with partial.open("r+b") as content:
                os.fsync(content.fileno())  # or a power cut may keep the new name and lose the content
        partial.replace(target)

    def note(self, record: Mapping[str, Any]) -> None:
        """Write the record."""
        with self.written(self.record.name) as partial:
            partial.write_text(json_text(record), encoding="utf-8")
