"""An audit's findings in sentences, the same ones for the page, the terminal and code scanning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..progress.rates import counted
from .alignment import Alignment
from .defences import DefenceResult
from .figures import Figure
from .guesses import Guesses
from .report import Report
from .severity import SAME_TEXT
from .tiers import OTHER_TEXT, PUBLIC_TEXT

NAMES = {"words": "content words", "f1": "F1 of words", "exact": "whole texts", "cosine": "cosine"}
# what a floor is from, in words
_FLOORS = {OTHER_TEXT: "from the vector of another row", PUBLIC_TEXT: "by the nearest public sentence"}
# planted texts, in words
INVENTED = "invented sentences"
CAREFUL = (
    "A copy of these vectors is potentially equivalent to exposure of the source text. Recovered words are guesses: "
    "do not treat them as evidence of what somebody wrote."
)
_WHY = "Text embeddings can be inverted: whoever copies the vectors and {}."
# by attacker, the same for every store; `Tier.holds` may count what is known
_WHOM = {
    "vectors": "has a public checkpoint recovers part of the text",
    "encoder": "has a public checkpoint and the encoder recovers part of the text",
    "pairs": "has the encoder and knows some of the texts recovers part of the others",
    "subject": "has the encoder and other texts on the same subject recovers part of the text",
}
_WHY_GUESSES = (
    "Guesses can be checked: whoever has the vectors and the encoder learns which of a list of texts are in the store."
)
_ADVICE = (
    "Give vectors the access rules, encryption and retention of their texts. Redact before embedding. Measure a "
    "defence with --defences before relying on it."
)


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        rule: its identifier, the same in every report.
        name: of the rule, one word.
        title: a few words.
        severity: one of `severity.ORDER`.
        sentence: what was measured.
        why, advice: of its rule, for every report alike.
    """

    rule: str
    name: str
    title: str
    severity: str
    sentence: str
    why: str
    advice: str = _ADVICE


def size(report: Report) -> str:
    """How many vectors of what width there are, and how many rows hold none."""
    skipped = report.source["skipped"]["count"]
    found = f"{counted(report.sample.total, 'vector')} of {counted(report.sample.vectors.shape[1], 'number')}"
    verb = "was" if skipped == 1 else "were"
    return found + (f" ({counted(skipped, 'row')} without a usable vector {verb} skipped)" if skipped else "")


def drawn(report: Report) -> str:
    """Which of a store's rows the sample holds, and what became of them."""
    rows, attacked = len(report.sample.rows), bool(report.tiers)
    if rows == report.sample.total:
        return "all of which were attacked" if attacked else "all of which are in the sample"
    return f"of which {rows:,} were drawn at random (seed {report.seed}){' and attacked' if attacked else ''}"


def findings(report: Report) -> Iterator[Finding]:
    """All findings, the gravest attacker's figures first; "none" where nothing came back beyond chance."""
    estimate = " (an estimate, from planted texts)" if report.is_estimate else ""
    for result, kind, figure, severity in report.graded:
        name = result.tier.name
        if kind is None:
            code, title = "WORDS", f"Text recovered: {name}"
            what = f"With {result.tier.holds}, an attacker recovers {sentence_of(figure, 'content words')}"
        else:
            code, title = kind.replace("-", "").upper(), f"Recovered {kind}: {name}"
            what = f"Of kind {kind}, {sentence_of(figure, 'come back whole')}"
        rule = f"EMBINV-{name.upper()}-{code}"
        yield Finding(
            rule, f"{name.title()}{code.title()}", title, severity, f"{what}{estimate}.", _WHY.format(_WHOM[name])
        )
    if report.guesses is not None:
        sentence = f"Of a list, compared with all {report.guesses.rows:,} vectors, {alarms(report.guesses)}."
        if report.guesses.nearest >= SAME_TEXT:
            sentence += f" The nearest has a cosine of {report.guesses.nearest:.4f}: the store holds this text, or"
            sentence += " a long one that differs from it in a few words."
        yield Finding(
            "EMBINV-GUESSES-ALARMS", "GuessesAlarms", "Guessed texts found", report.guesses.severity, sentence,
            _WHY_GUESSES,
        )  # fmt: skip


def alarms(guesses: Guesses) -> str:
    """How many guesses raise an alarm, and how many texts do that are no guesses."""
    have = "has" if guesses.unjudged == 1 else "have"
    unjudged = f" ({guesses.unjudged:,} {have} no fair comparison)" if guesses.unjudged else ""
    verb = "raises" if len(guesses.alarms) == 1 else "raise"
    found = f"{len(guesses.alarms):,} of {len(guesses.ranking):,} guesses {verb} an alarm{unjudged}"
    if guesses.false_alarms is None:
        return found
    topic = "" if guesses.on_topic is None else f", and {100 * guesses.on_topic:.0f} % of texts on the store's subject"
    return f"{found}; {100 * guesses.false_alarms:.1f} % of unrelated texts do{topic}"


def gate_notes(report: Report) -> Iterator[str]:
    """What a threshold counts as 0: a sentence for each, without its full stop."""
    for kind in report.absent:
        if kind in report.limits:
            yield f"the texts of the sample hold no entity of kind {kind}: it counts as 0 for --fail-over"


def sentence_of(figure: Figure, what: str) -> str:
    """A share in words, with its interval and floors."""
    text = f"{figure.hits:,.0f} of {figure.count:,} {what} ({shown(figure)}"
    if figure.floors:
        text += "; floors: " + ", ".join(_floor_texts(figure))
    return text + ")"


def _floor_texts(figure: Figure) -> list[str]:
    """Each floor and what it is from: "0 % from the vector of another row"."""
    return [f"{100 * value:.0f}\N{NO-BREAK SPACE}% {_FLOORS.get(name, name)}" for name, value in figure.floors.items()]


def learned(alignment: Alignment) -> str:
    """What known pairs taught, in words."""
    taught = "no map of the vectors" if alignment.kind == "none" else f"a map ({alignment.kind})"
    return (
        f"{alignment.pairs:,} known pairs teach {taught}; the vectors then have a cosine of "
        f"{alignment.cosine:.2f} with the encoder's"
    )


def matched(results: Sequence[DefenceResult]) -> Iterator[str]:
    """A sentence for each defence whose recall noise was tried at: which of the two hides more?"""
    bare = results[0].words.value
    for one in results[1:]:
        if one.noise_words is not None and bare:
            ours, noise = (100 * max(1 - value / bare, 0) for value in (one.words.value, one.noise_words))
            yield (
                f"At the search quality of {one.name} (recall@10 {one.utility.recall:.2f}), noise hides {noise:.0f} % "
                f"of the words that come back without a defence, and {one.name} hides {ours:.0f} %."
            )


def shown(figure: Figure) -> str:
    """A share in percent with its interval."""
    return f"{100 * figure.value:.0f} % [{100 * figure.low:.0f}, {100 * figure.high:.0f}]"
