"""Private copies of sources that cannot be read where they lie, and what shows that a source has changed."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data.files import one_line
from ..errors_embinv import EmbInvError
from .columns import Table


class PrivateFolder:
    """A temporary folder, which goes with this object, or when the process ends.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="embinv-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def file_version(path: Path) -> Any:
    """Changes when the file, or a file below the folder, is written: their names, sizes and times of change."""
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        stats = [(str(file), file.stat()) for file in paths if file.is_file()]
    except OSError:  # a file went between the listing and the look at it
        return None
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def file_versions(paths: Sequence[Path]) -> list[Any]:
    """`file_version` of each of several files."""
    return [file_version(path) for path in paths]


def check_space(shown: str, size: int) -> None:
    """Raises EmbInvError where a copy of `size` bytes finds no room in the temporary folder."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise EmbInvError(
            f"{shown}: is read from a copy of {size / 1e9:.1f} GB, and {tempfile.gettempdir()} has room for "
            f"{free / 1e9:.1f}; TMPDIR names another folder"
        )


def copy_of(shown: str, paths: list[Path], below: Path) -> PrivateFolder:
    """A copy of files, or of folders with all they hold, under their paths below a folder.

    Args:
        shown: the source, for messages.
        paths: the files and folders.
        below: the folder that they are in.

    Raises:
        EmbInvError: no room, what cannot be read, or somebody wrote to the source meanwhile.
    """
    before = file_versions(paths)
    check_space(shown, sum(size for version in before for _, size, _ in version or []))
    folder = PrivateFolder()
    try:
        for path in paths:
            _copy(path, folder.path / path.relative_to(below))
    except OSError as error:
        first = error.args[0][0][-1] if isinstance(error, shutil.Error) else error  # it lists all files of a folder
        raise EmbInvError(f"{shown}: cannot be copied: {one_line(first)}") from error
    finally:
        _make_private(folder.path)
    if before != file_versions(paths):
        raise EmbInvError(changed_message(shown))
    return folder


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, copy_function=shutil.copyfile, ignore_dangling_symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, target)


def _make_private(folder: Path) -> None:
    """Lets this user alone read and write folders: `copytree` gives them the modes of the source's."""
    folder.chmod(0o700)
    for path in folder.rglob("*"):  # a folder comes before what it holds
        if path.is_dir():
            path.chmod(0o700)


def open_named(shown: str, local: Path, open_file: Callable[[Path], Table]) -> Table:
    """Opens a temporary file; the messages of errors name what it is a copy of, also when it is read."""
    with _naming(shown, local):
        table = open_file(local)

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        with _naming(shown, local):
            yield from table.read(columns, size)

    def count(column: str) -> int:
        with _naming(shown, local):
            return table.count(column)

    return table._replace(read=read, count=count)


@contextmanager
def _naming(shown: str, local: Path) -> Iterator[None]:
    try:
        yield
    except EmbInvError as error:
        raise EmbInvError(str(error).replace(str(local), shown)) from error


def changed_message(shown: str) -> str:
    """What to do about a source that changes while it is read."""
    return (
        f"{shown}: changed while it was read; stop what writes to it, or read a copy of it, and give the same command "
        "again: what is done is kept"
    )
