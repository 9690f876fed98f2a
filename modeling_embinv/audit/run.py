"""An audit from its sample to its report."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.files import write_json
from ..data.tokens import tokenize
from ..errors_embinv import EmbInvError
from ..progress.bar import stage
from .alignment import Alignment
from .attack import ENCODER, SEARCH, Attacker
from .attackers import SUBJECT_STEPS, TIERS
from .canaries import plant
from .context import Filled, check_template, fill_sample, scored_texts
from .control import foreign
from .counts import counted
from .defences import DefenceReport, compare, distinct
from .fingerprint import Origin
from .guesses import Guesses, rank_guesses
from .kinds import KindFinder
from .known_pairs import known_pairs, public_texts, run_pairs_tier
from .named_words import NamedWords, name_words
from .nearest_rows import Batches
from .sample import Sample
from .subject import learnable, run_subject_tier
from .tiers import TierResult, run_tier
from .words import content_words, english_share, text_key

# rows below which figures say little about a store; planted texts where it holds none
FEW, PLANTED = 50, 50
# of English texts a third of the words are common in English alone; fewer texts than this are not judged
ENGLISH, JUDGED = 0.1, 10


@dataclass(frozen=True)
class Plan:
    """What an audit does.

    Attributes:
        tiers: the attackers, see `TIERS`. is_chosen: whether they were named. encoder_rows: rows for "encoder".
        candidates: guesses that are looked for in the store, and the line of each in their list.
        template: the redacted text of every row; None = the rows' own texts, where they hold marks.
        families: of defences.
        pairs: known texts with their vectors as the store holds them; None = no attacker knows any.
        train_texts: on the store's subject: the attacker "subject" knows them, and those on defences, with their
            vectors; none = there is no such attacker, and those on defences know the package's public ones.
        subject_steps: updates of the attacker "subject"; 0 = it is not tried.
    """

    tiers: Sequence[str] = TIERS
    is_chosen: bool = False
    encoder_rows: int = 50
    candidates: Mapping[str, int] = field(default_factory=dict)
    template: str | None = None
    families: Sequence[str] = ()
    pairs: Sample | None = None
    train_texts: Sequence[str] = ()
    subject_steps: int = SUBJECT_STEPS

    @property
    def needs_inverter(self) -> bool:
        """Whether anything but guesses is tried, which need the encoder alone."""
        return bool(set(self.tiers) - {"guesses"} or self.families)


@dataclass(frozen=True)
class Outcome:
    """What the steps of an audit gave; see `Report`.

    Attributes:
        origin: whose vectors these are, after the attack, see `foreign`.
        notes: what could not be done, a sentence each, without its full stop.
    """

    origin: Origin
    tiers: list[TierResult]
    planted: list[TierResult]
    guesses: Guesses | None
    filled: Filled | None
    defences: DefenceReport | None
    alignment: Alignment | None = None
    named_words: NamedWords | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    looked_for: Sequence[str] = ()
    notes: Sequence[str] = ()


def run(
    attacker: Attacker,
    sample: Sample,
    stored: Sample | None,
    plan: Plan,
    finder: KindFinder | None,
    batches: Batches,
    origin: Origin,
) -> Outcome:
    """Runs every step; what an interrupted run has finished in `attacker.work` is not done again.

    Args:
        attacker: the checkpoint, with the encoder where that is at hand.
        sample: the rows that are attacked.
        stored: rows for search under defences, if there are any.
        plan: the steps.
        finder: of personal data; None = no figures by kind.
        batches: all rows of the store, which guesses are compared with.
        origin: whose vectors these are, by the fingerprint.

    Raises:
        EmbInvError: a store too small for the search of defences, guesses without the encoder, a template that
            cannot be filled, or too few known pairs or texts.
    """
    # a template without a gap, a store too small for search and too few known texts are refused before the attack
    fills = "context" in plan.tiers and attacker.model.surrogate is not None
    if fills and plan.template is not None:
        check_template(attacker, plan.template)
    searched = distinct(stored) if plan.families and stored is not None else None
    known, subject = None, None
    if "pairs" in plan.tiers and plan.pairs is not None and attacker.encode is not None:
        known = known_pairs(plan.pairs, sample, attacker.embedded)
    if "subject" in plan.tiers and plan.train_texts and plan.subject_steps and attacker.retrain is not None:
        subject = learnable(attacker, sample, plan.train_texts)
    guesses = None
    if "guesses" in plan.tiers and plan.candidates and attacker.encode is not None:
        guesses = find_guesses(plan, attacker.encode, sample, batches, attacker.seed)
    tiers = [attacker.vectors_tier] if "vectors" in plan.tiers else []
    if "encoder" in plan.tiers and attacker.encode is not None:
        tiers.append(replace(ENCODER, limit=plan.encoder_rows))
    measured = sample._replace(texts=scored_texts(attacker, sample))
    results = [run_tier(attacker, measured, tier, finder) for tier in tiers]
    if origin.looks_like is None:
        origin = replace(origin, looks_like=foreign(attacker, results))
    # an estimate is of the encoder's own vectors
    can_estimate = sample.texts is not None or origin.looks_like is None
    named: NamedWords | None = None
    notes: list[str] = []
    if tiers and can_estimate:
        named = name_words(attacker.model, attacker.tokenizer, measured, attacker.seed)
        if named is None:
            notes.append("the checkpoint has no word head, so that no single words are named")
    alignment = None
    if known is not None:
        found, alignment = run_pairs_tier(attacker, measured, known, plan.encoder_rows, finder)
        results.append(found)
    if subject is not None:
        results.append(run_subject_tier(attacker, measured, subject, plan.subject_steps, plan.encoder_rows, finder))
    planted: list[TierResult] = []
    libraries = {} if finder is None else finder.libraries
    if sample.texts is None and can_estimate and attacker.encode is not None and (tiers or plan.families):
        try:
            measured, kinds = plant(PLANTED, attacker.encode, attacker.seed)
        except EmbInvError as error:
            notes.append(f"nothing is estimated: {str(error).rstrip('.')}")
        else:
            planted = [run_tier(attacker, measured, tier, kinds, f"planted-{tier.name}") for tier in tiers]
            libraries = kinds.libraries
    filled = None
    if fills:
        filled = fill_sample(attacker, sample, plan.template)
    defences = None
    if searched is not None and any(map(content_words, measured.texts or [])):
        own = set(map(text_key, measured.texts or []))
        texts = [text for text in plan.train_texts if text_key(text) not in own] or public_texts(measured.texts or [])
        defences = compare(attacker, measured, searched, plan.families, texts)
        defences = replace(defences, planted=sample.texts is None)
    looked_for = () if finder is None else finder.kinds
    return Outcome(origin, results, planted, guesses, filled, defences, alignment, named, libraries, looked_for, notes)


def find_guesses(plan: Plan, encode: Callable[..., Any], sample: Sample, batches: Batches, seed: int) -> Guesses:
    """Looks for the candidates of a plan in a whole store, see `rank_guesses`."""
    with stage(
        f"comparing {counted(len(plan.candidates), 'guess', 'guesses')} with {counted(sample.total, 'vector')}"
    ):
        found = rank_guesses(list(plan.candidates), encode, sample.texts, batches, sample.vectors.shape[1], seed)
    lines = plan.candidates
    return replace(found, ranking=[replace(guess, number=lines[guess.text]) for guess in found.ranking])


def open_work(folder: Path, sample: Sample, identity: dict[str, Any]) -> tuple[bool, list[str]]:
    """Makes the folder of unfinished work; that of another audit is removed.

    Args:
        folder: of the work.
        sample: the rows.
        identity: what else decides on the work, by flags and other names that a user knows.

    Returns:
        Whether an earlier run of the same audit left something there; and if it was another audit, what differs.
    """
    rows = {
        "vectors of the store": sample.digest,
        "rows of the sample": sample.row_keys(),
        "texts of the sample": sample.texts_digest,
    }
    now = {**rows, "settings of the search": SEARCH, **identity}
    now = json.loads(json.dumps(now))  # tuples become lists, as they were read
    record = folder / "audit.json"
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    if before == now:
        return True, []
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(record, now)
    return False, [name for name in now if before and before.get(name) != now[name]]


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
