"""Files of vectors on the Hub, `hf://datasets/USER/NAME/FILE`, and in S3, `s3://BUCKET/FILE`: fetched, then read."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..data.files import short_names
from ..errors_embinv import EmbInvError
from .columns import Table
from .copies import PrivateFolder, check_space, open_named
from .locations import Location, using_store


def open_remote(location: Location, open_file: Callable[[Path], Table]) -> Table:
    """A file, in any format; it lies in a temporary folder while it is read.

    Args:
        location: the URL.
        open_file: opens a local file.

    Raises:
        EmbInvError: no such file, no connection, no room, or what `open_file` raises.
    """
    folder = PrivateFolder()
    with using_store(location):
        system, path = _system(location)
        size = _size(location, system, path)
        check_space(location.shown, size)
        local = folder.path / Path(path).name
        with system.open(path, "rb") as source, local.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if local.stat().st_size != size:
            raise EmbInvError(f"{location.shown}: {local.stat().st_size:,} of {size:,} bytes came; try again")
    table = open_named(location.shown, local, open_file)

    # `held`: the file goes with the last that reads it
    def read(columns: list[str], size: int, held: PrivateFolder = folder) -> Iterator[dict[str, Any]]:
        yield from table.read(columns, size)

    return table._replace(read=read, version=lambda: None)


def _system(location: Location) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it."""
    if location.scheme == "hf":
        from huggingface_hub import HfFileSystem

        return HfFileSystem(), location.path.removeprefix("hf://")
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(location.path)
    return ArrowFSWrapper(system), path


def _size(location: Location, system: Any, path: str) -> int:
    """Bytes of the file."""
    try:
        found = system.info(path)
    except FileNotFoundError as error:
        raise EmbInvError(f"{location.shown}: no such file") from error
    if found["type"] != "file":
        present = [Path(name).name for name in system.ls(path, detail=False)]
        raise EmbInvError(f"{location.shown}: is a folder; name one of its files: {short_names(present)}")
    return int(found["size"])
