"""Vectors on standard input: they are kept in a file, which the readers can read twice."""

import atexit
import codecs
import lzma
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors_embinv import EmbInvError

if TYPE_CHECKING:
    from ..stores.locations import Location

# in place of a file's name: standard input, or standard output
STANDARD = "-"
# how compressed files begin, and their suffixes
_PACKED = {b"\x1f\x8b": ".gz", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2"}
_PEEK = 4096


def kept_input() -> "Location":
    """A temporary file of what stands on standard input, with the ending of its kind; it goes when the process ends.

    Messages call it "standard input".

    Raises:
        EmbInvError: standard input is a terminal, empty, or compressed and cannot be unpacked.
    """
    if sys.stdin.isatty():
        raise EmbInvError("-: standard input is a terminal; pipe a file of vectors into it, or name the file.")
    folder = Path(tempfile.mkdtemp(prefix="embinv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "input"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    with path.open("rb") as file:
        begin = file.read(_PEEK)
    suffix = next((suffix for magic, suffix in _PACKED.items() if begin.startswith(magic)), "")
    begin = _unpacked(path, suffix) if suffix else begin
    if not begin.strip():
        raise EmbInvError("-: standard input is empty.")
    from ..stores.locations import locate

    return locate(path.rename(path.with_suffix(_ending(begin) + suffix)))._replace(shown="standard input")


def _unpacked(path: Path, suffix: str) -> bytes:
    """What compressed text begins with; readers unpack the rest.

    Raises:
        EmbInvError: compressed in a way that is not read, damaged, or no text.
    """
    from ..data.files import OPENERS, one_line

    if suffix not in OPENERS:
        raise EmbInvError(
            f"standard input: is packed ({suffix}): unpack it first; text packed by gzip or xz is read as it is"
        )
    try:
        with OPENERS[suffix](path, "rb") as file:
            begin: Any = file.read(_PEEK)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise EmbInvError(f"standard input: corrupt, truncated or no {suffix} file: {one_line(error)}") from error
    if b"\0" in begin:
        raise EmbInvError("standard input: holds packed data that is no text: unpack it first")
    return bytes(begin)


def _ending(begin: bytes) -> str:
    """Of text; kinds that are no text are known by their first bytes, whatever their ending."""
    if begin.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"[", b"{"):
        return ".json"
    return ".tsv" if b"\t" in begin.partition(b"\n")[0] else ".csv"
