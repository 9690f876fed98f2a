"""An audit from its sample to its report."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.files import write_json
from ..errors_embinv import EmbInvError
from ..progress.bar import stage
from ..progress.rates import counted
from .alignment import Alignment
from .attack import ENCODER, SEARCH, Attacker, Tier
from .attackers import SUBJECT_STEPS, TIERS
from .canaries import plant
from .context import Filled, check_template, fill_sample, scored_texts
from .control import foreign
from .defences import DefenceReport, compare, distinct
from .fingerprint import Origin
from .guesses import Guesses, rank_guesses
from .kinds import KindFinder
from .known_pairs import KnownPairs, known_pairs, public_texts, run_pairs_tier
from .named_words import NamedWords, name_words
from .nearest_rows import Batches
from .sample import Sample
from .subject import learnable, run_subject_tier
from .tiers import TierResult, run_tier
from .words import content_words, without

# planted texts, where a store holds none
PLANTED = 50


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
    known = _known(attacker, sample, plan)
    guesses = None
    if "guesses" in plan.tiers and plan.candidates and attacker.encode is not None:
        guesses = find_guesses(plan, attacker.encode, sample, batches, attacker.seed)
    tiers, measured = _tiers(attacker, plan), sample._replace(texts=scored_texts(attacker, sample))
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
    taught, alignment = _by_knowledge(attacker, measured, plan, known, finder)
    filled = fill_sample(attacker, sample, plan.template) if fills else None
    notes += _uncalibrated(attacker, named, filled)
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
    return Outcome(
        origin,
        [*results, *taught],
        planted,
        guesses,
        filled,
        None if searched is None else _defended(attacker, measured, searched, plan, sample.texts is None),
        alignment,
        named,
        libraries,
        () if finder is None else finder.kinds,
        notes,
    )


def _uncalibrated(attacker: Attacker, named: NamedWords | None, filled: Filled | None) -> list[str]:
    """Which probabilities of the report were never fitted to held-out texts: a sentence without its full stop."""
    settings: Any = attacker.model.generation_config  # transformers declares its own class, without a calibration
    what = [] if named is None or settings.is_calibrated("words") else ["named words"]
    if filled is not None and filled.expected is not None and not settings.is_calibrated("fill_surrogate"):
        what.append("filled gaps")
    if not what:
        return []
    return [f"the checkpoint's probabilities of {' and '.join(what)} are not calibrated: they may be far off"]


class _Known(NamedTuple):
    """What attackers know besides the vectors; None where nobody does."""

    pairs: KnownPairs | None
    subject: list[str] | None


def _known(attacker: Attacker, sample: Sample, plan: Plan) -> _Known:
    """What is known of other rows than the sample's: pairs of text and vector, and texts on the store's subject."""
    pairs, subject = None, None
    if "pairs" in plan.tiers and plan.pairs is not None and attacker.encode is not None:
        pairs = known_pairs(plan.pairs, sample, attacker.embedded)
    if "subject" in plan.tiers and plan.train_texts and plan.subject_steps and attacker.retrain is not None:
        subject = learnable(attacker, sample, plan.train_texts)
    return _Known(pairs, subject)


def _tiers(attacker: Attacker, plan: Plan) -> list[Tier]:
    """The attackers who know nothing besides the vectors."""
    tiers = [attacker.vectors_tier] if "vectors" in plan.tiers else []
    if "encoder" in plan.tiers and attacker.encode is not None:
        tiers.append(replace(ENCODER, limit=plan.encoder_rows))
    return tiers


def _by_knowledge(
    attacker: Attacker, sample: Sample, plan: Plan, known: _Known, finder: KindFinder | None
) -> tuple[list[TierResult], Alignment | None]:
    """What those recover who know something, and the map that pairs teach."""
    results, alignment = [], None
    if known.pairs is not None:
        found, alignment = run_pairs_tier(attacker, sample, known.pairs, plan.encoder_rows, finder)
        results.append(found)
    if known.subject is not None:
        steps, limit = plan.subject_steps, plan.encoder_rows
        results.append(run_subject_tier(attacker, sample, known.subject, steps, limit, finder))
    return results, alignment


def _defended(
    attacker: Attacker, sample: Sample, searched: np.ndarray, plan: Plan, is_planted: bool
) -> DefenceReport | None:
    """What defences cost and buy; None where no text of the sample has words that could come back."""
    attacked = sample.texts or []
    if not any(map(content_words, attacked)):
        return None
    texts = without(plan.train_texts, attacked) or public_texts(attacked)
    return replace(compare(attacker, sample, searched, plan.families, texts), planted=is_planted)


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
