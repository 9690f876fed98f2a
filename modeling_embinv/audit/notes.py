"""What a reader of an audit's figures should know: a sentence for each, without its full stop."""

from collections.abc import Callable, Sequence
from typing import Any

from ..data.tokens import tokenize
from ..errors_embinv import EmbInvError
from ..progress.rates import counted
from .kinds import KindFinder
from .run import Outcome, Plan
from .sample import Sample
from .words import content_words, english_share

# rows below which figures say little about a store
FEW = 50
# of English texts a third of the words are common in English alone; fewer texts than this are not judged
ENGLISH, JUDGED = 0.1, 10


def size_notes(sample: Sample) -> list[str]:
    """That a store is too small for much to be said of it: a sentence, without its full stop, or none."""
    if sample.total >= FEW:
        return []
    held = counted(sample.total, "vector")
    return [f"the store holds {held}; of fewer than {FEW} the intervals are wide, and say little"]


def sample_notes(sample: Sample, tokenizer: Any, longest: int, languages: Sequence[str]) -> list[str]:
    """What a reader of the figures should know of the sample: a sentence each, without its full stop.

    Args:
        sample: the rows.
        tokenizer: the checkpoint's.
        longest: tokens that the checkpoint writes.
        languages: of the checkpoint, as its model card names them; none = unknown.
    """
    notes = size_notes(sample)
    if sample.texts is None:
        return notes
    if empty := sum(not text.strip() for text in sample.texts):
        notes.append(f"{empty:,} of {len(sample.texts):,} rows have no text: they count for nothing")
    elif sample.num_texts is not None and sample.num_texts < sample.total:
        notes.append(f"{sample.num_texts:,} of {sample.total:,} vectors have a text: the sample is of them alone")
    long = sum(len(ids) > longest for ids in tokenize(tokenizer, sample.texts))
    if long:
        notes.append(
            f"{long:,} of {len(sample.texts):,} texts are longer than the {longest} tokens that this checkpoint "
            "writes: their ends cannot come back, and count as not recovered"
        )
    shares = sorted(share for text in sample.texts if (share := english_share(text)) is not None)
    if list(languages) == ["en"] and len(shares) >= JUDGED and shares[len(shares) // 2] < ENGLISH:
        notes.append("the texts do not look like English, the only language that this checkpoint writes")
    return notes


def step_notes(outcome: Outcome, plan: Plan) -> list[str]:
    """What could not be tried: a sentence each, without its full stop."""
    notes = list(outcome.notes)
    is_unscored = not outcome.planted and not any(result.figures for result in outcome.tiers)
    if outcome.tiers and is_unscored and outcome.origin.looks_like is not None:
        notes.append("nothing is estimated: planted texts would have other vectors than this store's encoder makes")
    estimated = {one.tier.name for one in outcome.planted}
    bare = [one.tier.name for one in outcome.tiers if one.sample.texts is None and one.expected is None]
    if unscored := [name for name in bare if name not in estimated]:
        notes.append(f"what {' and '.join(unscored)} recovered stands in hits.jsonl alone: no texts can score it")
    texts = [text for result in outcome.tiers for text in result.sample.texts or []]
    if texts and not any(map(content_words, texts)):
        notes.append("the texts have no content words that could come back")
    if plan.families and outcome.defences is None:
        notes.append("no defence was tried: there are no texts with content words to attack")
    if plan.is_chosen and "context" in plan.tiers and outcome.filled is None:
        notes.append("no text of the sample holds a gap that this checkpoint can fill (attacker: context)")
    if outcome.filled is not None and outcome.filled.expected is None:
        verdicts = "; ".join(outcome.filled.verdicts)
        notes.append(f"no mark counts as a gap (attacker: context): {verdicts}")
    return notes


def finder_or_note(make: Callable[[], KindFinder] = KindFinder) -> tuple[KindFinder | None, str | None]:
    """The finder of personal data, or why there is none."""
    try:
        return make(), None
    except EmbInvError as error:
        return None, str(error).rstrip(".")
