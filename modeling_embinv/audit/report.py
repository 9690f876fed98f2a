"""What an audit found, as one JSON document; its schema is in docs/reference/audit.md."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from .. import __version__
from .alignment import Alignment
from .context import Filled
from .defences import DefenceReport
from .figures import Figure
from .findings import measure
from .fingerprint import Origin
from .guesses import Guesses
from .named_words import NamedWords
from .sample import Sample
from .severity import GUESS_LEVELS, KIND_LEVELS, LEVELS, ORDER, exceeded, severity
from .tiers import TierResult

SCHEMA = "embinv-audit/3"
# where the risk is described
STANDARDS = (
    ("OWASP LLM08:2025", "Vector and Embedding Weaknesses"),
    ("OWASP LLM09:2026", "Vector and Embedding Weaknesses"),
    ("MITRE ATLAS AML.T0024.001", "Exfiltration via AI Inference API: Invert AI Model"),
    ("OWASP AISVS C8", "Memory, Embeddings and Vector Database Security"),
    ("CWE-200", "Exposure of Sensitive Information to an Unauthorized Actor"),
)
_PACKAGES = (
    "torch", "transformers", "sentence-transformers", "numpy", "scikit-learn", "presidio-analyzer", "spacy", "faker",
    "detect-secrets", "faiss-cpu",
)  # fmt: skip
# kinds whose recovery is a finding of its own, from this number of entities on
SENSITIVE = ("names", "e-mail", "phone", "credentials", "identifiers", "health")
FEWEST = 10


class Graded(NamedTuple):
    """A figure that has a severity.

    Attributes:
        result: the attacker's.
        kind: the sensitive kind of which it is the share that came back whole; None for content words.
        figure, severity: what was measured, and how severe it is.
    """

    result: TierResult
    kind: str | None
    figure: Figure
    severity: str


@dataclass
class Report:
    """Everything that the files of a report are made of.

    Attributes:
        source: the store: its name, columns, rows, digest, skipped rows.
        checkpoint: its name, encoder and digest; None where guesses alone were looked for.
        encoder: the one that embedded texts; None where none was at hand.
        origin: whose vectors these are.
        sample: the rows that were looked at.
        seed: of all draws.
        date: when the store was read, see `utc_now`.
        tiers: what each attacker reads of the sample.
        planted: the same of planted texts, where the store holds none.
        guesses: which candidates are in the store.
        filled: redacted texts whose gaps were filled.
        defences: what each defence costs and buys.
        alignment: what known pairs taught their attacker.
        named_words: which words are in the vectors, by the word head.
        libraries: what found which kinds of personal data.
        looked_for: kinds that they can find in the store's own texts.
        limits: thresholds by figure, see `--fail-over`.
        warnings: sentences for the reader.
        reveal: whether recovered words may stand in the files.
    """

    source: dict[str, Any]
    checkpoint: dict[str, Any] | None
    encoder: str | None
    origin: Origin
    sample: Sample
    seed: int
    date: str
    tiers: Sequence[TierResult] = ()
    planted: Sequence[TierResult] = ()
    guesses: Guesses | None = None
    filled: Filled | None = None
    defences: DefenceReport | None = None
    alignment: Alignment | None = None
    named_words: NamedWords | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    looked_for: Sequence[str] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    reveal: bool = False

    @property
    def is_estimate(self) -> bool:
        """Whether the figures are of planted texts, as the store holds none."""
        return bool(self.planted)

    @property
    def measured(self) -> Sequence[TierResult]:
        """The results that have figures."""
        return self.planted or [result for result in self.tiers if result.figures]

    @property
    def place(self) -> str:
        """What was read: the source, and its collection where one was chosen."""
        collection = self.source.get("collection")
        return f"{self.source['name']}{'' if collection is None else f', collection {collection}'}"

    @property
    def figures(self) -> dict[str, Figure]:
        """Those of each attacker together, the largest of each name; kinds by the share that came back whole.

        "guesses" is the share of the candidates that are found in the store.
        """
        guesses = None if self.guesses is None else self.guesses.figure
        found: dict[str, Figure] = {} if guesses is None else {"guesses": guesses}
        for result in self.measured:
            whole = {kind: figures.whole for kind, figures in result.kinds.items()}
            for name, figure in {**result.figures, **whole}.items():
                if name not in found or figure.value > found[name].value:
                    found[name] = figure
        return found

    @property
    def graded(self) -> list[Graded]:
        """The words of each attacker, and its sensitive kinds that there are enough of."""
        found = []
        for result in self.measured:
            if "words" in result.figures:
                found.append(Graded(result, None, result.figures["words"], severity(result.figures["words"])))
            for kind, (whole, _) in result.kinds.items():
                if kind in SENSITIVE and whole.count >= FEWEST:
                    found.append(Graded(result, kind, whole, severity(whole, KIND_LEVELS)))
        return found

    @property
    def severity(self) -> str | None:
        """The worst of all attackers' figures that have one, and of guesses; None: not measured."""
        found = [one.severity for one in self.graded]
        if self.guesses is not None:
            found.append(self.guesses.severity)
        return max(found, key=ORDER.index, default=None)

    def same_rows(self, result: TierResult) -> Figure | None:
        """Content words that the first attacker recovers of a later one's rows: what the later one gained."""
        if not result.figures or result.sample.texts is None or result is self.measured[0]:
            return None
        first = self.measured[0]
        texts = dict(zip(first.sample.row_keys(), first.recovered.texts, strict=True))
        ours = [texts.get(key) for key in result.sample.row_keys()]
        known = [text for text in ours if text is not None]
        if len(known) < len(ours):
            return None
        return measure(result.sample.texts, known, {}, seed=self.seed).get("words")

    def by_collection(self, result: TierResult) -> dict[str, Figure]:
        """Content words that came back of each collection's rows, where the store has several and holds texts."""
        sample, found = result.sample, {}
        for name in dict.fromkeys(sample.collections or []):
            rows = [row for row, own in enumerate(sample.collections or []) if own == name]
            texts = [(sample.texts or [])[row] for row in rows]
            figures = measure(texts, [result.recovered.texts[row] for row in rows], {}, seed=self.seed)
            if "words" in figures:
                found[name] = figures["words"]
        return found

    @property
    def absent(self) -> list[str]:
        """Kinds that were looked for in the texts, and of which they hold none."""
        is_searched = bool(self.measured) and not self.is_estimate
        return [kind for kind in self.looked_for if is_searched and kind not in self.figures]

    def over(self) -> dict[str, bool | None]:
        """Name of each threshold → whether it is exceeded; see `exceeded`."""
        return exceeded(self.figures, self.limits, self.absent)

    def as_dict(self) -> dict[str, Any]:
        """The document, without a recovered word; guesses that are to be revealed stand in it."""
        over = self.over()
        return {
            "schema": SCHEMA,
            "date": self.date,
            "severity": self.severity,
            "source": self.source,
            "checkpoint": self.checkpoint,
            "encoder": self.encoder,
            "origin": {"fits": self.origin.looks_like is None, **asdict(self.origin)},
            "sample": {"rows": len(self.sample.rows), "of": self.sample.total, "seed": self.seed},
            "tiers": [self._tier(result) for result in self.tiers],
            "planted": [self._tier(result) for result in self.planted],
            "guesses": None if self.guesses is None else self.guesses.as_dict(self.reveal),
            "context": None if self.filled is None else self.filled.as_dict(),
            "defences": None if self.defences is None else self.defences.as_dict(),
            "pairs": None if self.alignment is None else self.alignment.as_dict(),
            "named_words": None if self.named_words is None else self.named_words.as_dict(),
            "thresholds": {
                "severity_by_words": _named(LEVELS), "severity_by_kind": _named(KIND_LEVELS),
                "severity_by_guesses": GUESS_LEVELS,
                "kinds_with_severity": list(SENSITIVE), "fewest_of_a_kind": FEWEST,
                "fail_over": {name: {"limit": limit, "over": over[name]} for name, limit in self.limits.items()},
            },
            "warnings": list(self.warnings),
            "standards": [{"id": name, "title": title} for name, title in STANDARDS],
            "kinds_found_by": dict(self.libraries),
            "versions": versions(),
            "redacted": not self.reveal,
        }  # fmt: skip

    def _tier(self, result: TierResult) -> dict[str, Any]:
        tier, same = result.tier, self.same_rows(result)
        return {
            "name": tier.name,
            "holds": tier.holds,
            "feedback": tier.feedback,
            "settings": tier.settings,
            "rows": len(result.sample.rows),
            "seconds": None if result.recovered.seconds is None else round(result.recovered.seconds, 1),
            "first_on_these_rows": None if same is None else asdict(same),
            "nearest_known_text": None if result.nearest is None else asdict(result.nearest),
            "collections": {name: asdict(figure) for name, figure in self.by_collection(result).items()}
            if result.figures
            else {},
            "figures": {name: asdict(figure) for name, figure in result.figures.items()},
            "kinds": {
                kind: {"whole": asdict(figures.whole), "words": asdict(figures.words)}
                for kind, figures in result.kinds.items()
            },
            "expected_token_accuracy": None if result.expected is None else asdict(result.expected),
        }


def utc_now() -> str:
    """The date and time in UTC, to the second, as ISO 8601 has it: 2026-11-27T22:41:26Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions() -> dict[str, str]:
    """Of this package, of Python and of the libraries that decide on the figures."""
    found = {"embinv": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _named(levels: tuple[tuple[float, str], ...]) -> dict[str, float]:
    return {name: lowest for lowest, name in levels}
