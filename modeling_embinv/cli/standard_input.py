"""Vectors on standard input: they are kept in a file, which the readers can read twice."""

import atexit
import codecs
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors_embinv import EmbInvError

if TYPE_CHECKING:
    from ..stores.locations import Location

# in place of a file's name: standard input, or standard output
STANDARD = "-"


def kept_input() -> "Location":
    """A temporary file of what stands on standard input, with the ending of its kind; it goes when the process ends.

    Messages call it "standard input".

    Raises:
        EmbInvError: standard input is a terminal, or empty.
    """
    if sys.stdin.isatty():
        raise EmbInvError("-: standard input is a terminal; pipe a file of vectors into it, or name the file.")
    folder = Path(tempfile.mkdtemp(prefix="embinv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "input"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    with path.open("rb") as file:
        begin = file.read(4096)
    if not begin.strip():
        raise EmbInvError("-: standard input is empty.")
    from ..stores.locations import locate

    return locate(path.rename(path.with_suffix(_ending(begin))))._replace(shown="standard input")


def _ending(begin: bytes) -> str:
    """Of text; kinds that are no text are known by their first bytes, whatever their ending."""
    if begin.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"[", b"{"):
        return ".json"
    return ".tsv" if b"\t" in begin.partition(b"\n")[0] else ".csv"
