"""Folders that are written whole: a reader finds the former one or the new one, and a kill leaves nothing for ever."""

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .files import one_line

# Linux: renameat2(…, RENAME_EXCHANGE); macOS: renameatx_np(…, RENAME_SWAP): (function, flag, AT_FDCWD)
_EXCHANGES = {"linux": ("renameat2", 2, -100), "darwin": ("renameatx_np", 2, -2)}


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` at the end of the `with` block.

    Raises:
        OSError: in one line, when writing fails for whatever reason; `folder` is as it was, nothing else is left.
    """
    partial = partial_of(folder)
    try:
        make_empty(partial)
        yield partial
        publish(partial, folder)
    except Exception as error:  # a full disk is an error of its own kind in safetensors, tokenizers and PyTorch
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"cannot write {folder}: {one_line(error)}. What was there before is as it was.") from error


def partial_of(folder: Path) -> Path:
    """The name that a folder has while it is written."""
    return folder.with_name(f"{folder.name}.partial")


def make_empty(folder: Path) -> None:
    """Make the folder; what an earlier run left in one of that name must not get into it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def publish(new: Path, folder: Path) -> None:
    """Give `new` the name of `folder`, whose former content is removed.

    Both are exchanged in one step where the system has a call for that (Linux, macOS): a reader finds a whole folder
    at every moment. Replacing file by file would show it a mixture of two models; a symbolic link needs rights on
    Windows and breaks when copied. Elsewhere there is a moment without the folder, and `remove_leftovers` mends a
    kill in it.
    """
    for file in new.rglob("*"):
        if file.is_file():
            with file.open("r+b") as content:
                os.fsync(content.fileno())  # or a power cut may keep the new name and lose the content
    if not folder.exists():
        new.replace(folder)
    elif _exchange(new, folder):
        remove(new)
    else:
        old = folder.with_name(f"{folder.name}.old")
        folder.replace(old)
        new.replace(folder)
        remove(old)


def _exchange(left: Path, right: Path) -> bool:
    """Exchange two folders in one step; false where the system or the file system cannot."""
    name, flag, here = _EXCHANGES.get(sys.platform, ("", 0, 0))
    call = getattr(ctypes.CDLL(None), name, None) if name else None
    return call is not None and call(here, os.fsencode(left), here, os.fsencode(right), flag) == 0


def remove(folder: Path) -> None:
    """Remove a folder, first its name: a kill on the way must not leave half of it under a name that counts."""
    doomed = folder.with_name(f"{folder.name}.removing")
    if doomed.exists():
        shutil.rmtree(doomed)
    folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # what somebody holds open goes at the next `remove_leftovers`


def remove_leftovers(parent: Path, names: str) -> None:
    """Remove what kills have left in `parent` of folders whose names match the pattern `names`."""
    kind = re.compile(rf"({names})(\.partial|\.old|\.removing)+")
    for path in sorted(parent.iterdir()) if parent.is_dir() else ():
        found = kind.fullmatch(path.name)
        if found is None or not path.is_dir():
            continue
        whole = parent / found[1]
        if path.name == f"{whole.name}.old" and not whole.exists():
            path.replace(whole)
        else:
            shutil.rmtree(path)
