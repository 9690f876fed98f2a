"""Where vectors are: a file, a folder or a store, as a user writes it."""

import importlib
import os
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ..data.files import one_line, short_names
from ..errors_embinv import EmbInvError, shown
from .values import is_number

# what may follow the question mark of a store's URL; whatever else does belongs to the database's own URL
OPTIONS = ("collection", "table", "column", "id_column", "text_column")
# whose URLs are not paths of this machine
_SERVERS, REMOTE = ("postgresql", "postgres"), ("hf", "s3")
# bytes of a file's name on today's systems
_LONGEST_NAME = 255
# two letters at least: C: is a drive
_SCHEME = re.compile(r"([a-z][a-z0-9+-]+):(.*)", re.DOTALL | re.IGNORECASE)


class SeveralCollectionsError(EmbInvError):
    """A store has several collections, and none was named.

    Attributes:
        names: those that hold different rows.
        views: the others, which may show rows of these a second time.
    """

    def __init__(self, message: str, names: Sequence[str], views: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names, self.views = names, views


class Location(NamedTuple):
    """A source of vectors.

    Attributes:
        shown: as the user wrote it, for messages; without a password.
        scheme: the kind of store, in lower case; "" for a file or folder.
        path: what follows the scheme: a path, or the whole URL for a server or a remote file.
        options: those of `OPTIONS` that follow the question mark.
        collection: the collection or table that is wanted; None = the only one.
        trust: whether pickles of this source may be loaded.
    """

    shown: str
    scheme: str
    path: str
    options: dict[str, str]
    collection: str | None
    trust: bool

    @property
    def file(self) -> Path:
        """The local file or folder.

        Raises:
            EmbInvError: there is none.
        """
        path = Path(self.path)
        if not path.exists():
            # what is no option of ours is part of the path, as a file's name may hold a question mark
            hint = f"; the options behind ? are {', '.join(OPTIONS)}" if self.scheme and "?" in self.path else ""
            raise EmbInvError(f"{self.shown}: no such file or folder{hint}")
        return path

    @property
    def identity(self) -> str:
        """The same for each run over this source, from whatever folder it is started; without a password."""
        if not self.scheme:
            return str(Path(self.path).resolve())
        is_local = "://" not in self.path and self.scheme not in _SERVERS
        return f"{self.scheme}:{Path(self.path).resolve() if is_local else _without_password(self.path)}"


def locate(source: "str | Path | Location", collection: str | None = None, trust: bool = False) -> Location:
    """Takes apart what names a source of vectors.

    Args:
        source: a path, or a text such as `chroma:./store?collection=support`. A `Path` is never taken as a URL. A
            `Location` is given back.
        collection: the collection or table; None = the URL's.
        trust: whether pickles of this source may be loaded.

    Raises:
        EmbInvError: nothing, numbers, which are no name of a file, or a name that is too long for one.
    """
    if isinstance(source, Location):
        return source
    if not isinstance(source, str | Path) or not str(source).strip():
        raise EmbInvError(f"vectors must be a file, a folder or a store's URL, got {shown(source)}.")
    found = None if isinstance(source, Path) or _exists(source) else _SCHEME.fullmatch(source)
    if found is None:
        _check_name(str(source))
        return Location(str(source), "", str(source), {}, collection, trust)
    scheme, rest = found[1].lower().partition("+")[0], found[2]
    rest, options = _taken_out(rest)
    if rest.startswith("//") and scheme in (*_SERVERS, *REMOTE):
        path = f"{scheme}:{rest}"
    elif _names_server(rest) or scheme in _SERVERS:
        path = rest
    else:
        path = str(Path(rest[2:] if rest.startswith("//") else rest).expanduser())
    wanted = collection or options.get("collection") or options.get("table")
    return Location(_without_password(str(source)), scheme, path, options, wanted, trust)


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # a name that is too long for this system
        return False


def _check_name(source: str) -> None:
    words = source.replace(",", " ").split()
    are_numbers = len(words) > 1 and all(map(is_number, words))
    is_long = any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(source).parts)
    if not is_long and (not are_numbers or _exists(source)):
        return
    name = source if len(source) <= 60 else f"{source[:59]}…"
    hint = "; a vector is given as JSON, [0.1, -0.2, …]" * are_numbers
    raise EmbInvError(f"{name}: no such file{hint}")


def _names_server(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _taken_out(rest: str) -> tuple[str, dict[str, str]]:
    """A URL without our own options, and these; a question mark without any of them is part of the path."""
    before, mark, query = rest.rpartition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    options = {name: value for name, value in pairs if name in OPTIONS}
    if not mark or not options:
        return rest, {}
    # a database takes a plus sign as it stands
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    others = [(name, value) for name, value in pairs if name not in OPTIONS]
    return before + ("?" + urlencode(others, quote_via=quote) if others else ""), options


def _without_password(url: str) -> str:
    """The URL with stars in place of a password, in its address or behind its question mark."""
    start = url.index(":") + 1 if _names_server(url.partition(":")[2]) else 0
    parts = urlsplit(url[start:])
    if parts.password is not None:
        user, _, address = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=f"{user.partition(':')[0]}:***@{address}")
        url = url[:start] + urlunsplit(parts)
    return re.sub(r"(?i)\b((?:ssl)?password=)[^&\s]*", r"\1***", url)


def choose_collection(
    location: Location, present: Sequence[str], what: str = "collection", views: Container[str] = ()
) -> str:
    """The collection that is wanted, or the only one.

    Args:
        location: of the store.
        present: the names of all collections.
        what: what the store calls them.
        views: those that show what others hold; where there are others, these alone make up the whole store.

    Raises:
        EmbInvError: there is none of this name, none at all, or a choice (`SeveralCollectionsError`).
    """
    if location.collection in present:
        return str(location.collection)
    if not present:
        raise EmbInvError(f"{location.shown}: holds no {what} of vectors")
    if location.collection is not None:
        raise EmbInvError(
            f"{location.shown}: no {what} {short_names([location.collection])!r}; present: {short_names(present)}"
        )
    if len(present) > 1:
        message = f"{location.shown}: several {what}s; name one with --{what}: {short_names(present)}"
        names = [name for name in present if name not in views] or present
        raise SeveralCollectionsError(message, names, [name for name in present if name not in names])
    return present[0]


def library(location: Location, module: str, extra: str) -> Any:
    """A store's library.

    Raises:
        EmbInvError: it is not installed; how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise EmbInvError(f"{location.shown}: needs {name}, not installed: pip install 'embinv[{extra}]'") from error


@contextmanager
def using_store(location: Location) -> Iterator[None]:
    """Turns whatever a store's library raises into an EmbInvError of one line that names the store."""
    try:
        yield
    except (EmbInvError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # Chroma's panics are no `Exception`
        raise EmbInvError(f"{location.shown}: cannot be read: {one_line(error, 300)}") from error
