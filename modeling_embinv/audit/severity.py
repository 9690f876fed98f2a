"""How severe a finding is, and when a command fails: by thresholds that the report states."""

from collections.abc import Collection, Mapping

from ..errors_embinv import EmbInvError
from .figures import Figure

# lowest share of content words that came back → severity
LEVELS = ((0.5, "critical"), (0.3, "high"), (0.15, "medium"), (0.0, "low"))
# of one kind of personal data or of secrets, lowest share that came back whole → severity
KIND_LEVELS = ((0.2, "critical"), (0.05, "high"), (0.01, "medium"), (0.0, "low"))
# a vector this near is that of the guess's own text: of all-MiniLM-L6-v2, two card numbers that differ by a digit have
# 0.997, and a text's own vector in int8 or half precision 0.9999; of a chunk of 160 tokens, one with three other words
# has 0.9993
SAME_TEXT = 0.999
# more alarms than chance explains: so many come about by chance in fewer audits than this
CHANCE = 0.05
GUESS_LEVELS = {
    "critical": "a guess that raises an alarm has a cosine of 0.999 or more: the store holds its very text, or, of a "
    "long one, a version in which a few words differ",
    "high": "more alarms than guesses on the store's subject raise by chance (5 %)",
    "medium": "more alarms than unrelated texts raise by chance (5 %)",
    "low": "alarms, not more than chance explains",
}
ORDER = ("none", "low", "medium", "high", "critical")


def severity(figure: Figure, levels: tuple[tuple[float, str], ...] = LEVELS) -> str:
    """The severity of a share: "none" where its interval reaches down to a floor."""
    if not figure.above_floor:
        return "none"
    return next(name for lowest, name in levels if figure.value >= lowest)


def alarm_severity(alarms: int, guesses: int, nearest: float, rate: float, on_topic: float | None) -> str:
    """The severity of guesses that raise an alarm, see `GUESS_LEVELS`; "none" where none does.

    Args:
        alarms: of how many guesses that have a fair comparison.
        guesses: all of these.
        nearest: the largest cosine of any guess that raises an alarm.
        rate: the share of unrelated texts that do.
        on_topic: the share of texts on the store's subject that do, at most; None where that was not measured.
    """
    from scipy.stats import binom  # the import takes a second

    if nearest >= SAME_TEXT:
        return "critical"
    if not alarms:
        return "none"
    if on_topic is not None and binom.sf(alarms - 1, guesses, max(rate, on_topic)) < CHANCE:
        return "high"
    return "medium" if binom.sf(alarms - 1, guesses, rate) < CHANCE else "low"


def parse_limits(given: list[str], known: tuple[str, ...]) -> dict[str, float]:
    """The thresholds of `--fail-over`.

    Args:
        given: each "words=0.3", or several with commas between them.
        known: names of figures.

    Raises:
        EmbInvError: another form, another name, or no share from 0 to 1.
    """
    limits = {}
    for part in (part.strip() for text in given for part in text.split(",")):
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise EmbInvError(
                f"--fail-over must be FIGURE=SHARE, as words=0.3; figures: {', '.join(known)}; got {part[:40]!r}."
            )
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = -1.0
        if not 0 <= limits[name] <= 1:
            raise EmbInvError(f"--fail-over {name} must be a share from 0 to 1, got {value[:40]!r}.")
    return limits


def exceeded(
    figures: Mapping[str, Figure], limits: Mapping[str, float], absent: Collection[str] = ()
) -> dict[str, bool | None]:
    """Name of each threshold → whether its figure is over it; None where that was not measured.

    Args:
        figures: what was measured.
        limits: the thresholds.
        absent: kinds that were looked for, and of which there are none: they are within every threshold.
    """
    return {
        name: figures[name].value > limit if name in figures else False if name in absent else None
        for name, limit in limits.items()
    }
