"""The store that `embinv audit` reads, and the checkpoint or, for guesses alone, the encoder of its vectors."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ..data.files import one_line
from ..errors_embinv import EmbInvError
from .checks import check_device
from .options import MODEL

if TYPE_CHECKING:
    from ..audit.run import Plan
    from ..audit.store import Match, Part
    from ..configuration_embinv import EmbInvConfig
    from ..data.encoder_config import EncoderConfig
    from ..data.encoders import Encoder
    from ..stores.rows import VectorBatch
    from ..stores.vectors import VectorSource


class Target(NamedTuple):
    """What is audited.

    Attributes:
        match: the collections, and whose vectors they hold.
        plan: what is tried on them; guesses alone where there is no inverter.
        encoder: for guesses alone; otherwise None.
    """

    match: "Match"
    plan: "Plan"
    encoder: "Encoder | None" = None


def open_collection(options: argparse.Namespace, collection: str | None) -> "VectorSource":
    """A collection of the store, with its texts where it has any."""
    from ..stores.columns import NoTextsError

    try:
        return _opened(options, collection, options.text_column or True)
    except NoTextsError as error:
        if error.others:
            print(f"embinv: {error}; name theirs with --text-column", file=sys.stderr)
        return _opened(options, collection, False)


def all_rows(options: argparse.Namespace, parts: "Sequence[Part]") -> "Iterator[tuple[str | None, VectorBatch]]":
    """All rows of the collections once more; see `whole_store`."""
    from ..audit.store import whole_store

    return whole_store(lambda part: _opened(options, part.name, part.text_column or False), parts)


def _opened(options: argparse.Namespace, collection: str | None, texts: str | bool) -> "VectorSource":
    from ..stores.vectors import open_vectors

    return open_vectors(
        options.source, options.column, options.id_column, texts, strict=options.strict,
        collection=collection or options.collection, trust=options.trust_source,
    )  # fmt: skip


def choose_target(options: argparse.Namespace, parts: "Sequence[Part]", plan: "Plan") -> Target:
    """The checkpoint that the vectors fit; for guesses alone, the encoder, and no inverter is needed.

    With `--candidates` and `--encoder`, and nothing that asks for an inverter, guesses alone are tried also where the
    usual checkpoint is not at hand or does not fit.

    Raises:
        EmbInvError: no checkpoint, or not the encoder, fits the vectors, see `match`; guesses without an encoder.
        OSError: a checkpoint or an encoder that cannot be loaded.
    """
    notes = []
    if plan.needs_inverter:
        try:
            return Target(_match_checkpoint(options, parts)[0], plan)
        except (EmbInvError, OSError) as error:
            if not _is_for_guesses(options, plan):
                raise
            notes = [f"no inverter was tried: {one_line(error, 300).rstrip('.')}"]
    plan = replace(plan, tiers=("guesses",))
    encoder, found = _named_encoder(options, parts)
    return Target(found._replace(notes=[*notes, *found.notes]), plan, encoder)


def _is_for_guesses(options: argparse.Namespace, plan: "Plan") -> bool:
    """Whether guesses are asked for by their encoder, and nothing else is."""
    asks_for_more = (
        options.model or plan.is_chosen or plan.families or options.pairs or options.template or plan.train_texts
    )
    return bool(plan.candidates and options.encoder and not asks_for_more and not options.force)


def _match_checkpoint(options: argparse.Namespace, parts: "Sequence[Part]") -> "tuple[Match, EmbInvConfig]":
    """Which checkpoint's vectors these are, and its configuration; see `match`."""
    from ..audit.store import match
    from ..repository import load_config

    configs = {name: load_config(name) for name in options.model or [MODEL]}
    found = match(configs, parts, bool(options.force or options.pairs))
    return found, configs[str(found.origin.model)]


def _named_encoder(options: argparse.Namespace, parts: "Sequence[Part]") -> "tuple[Encoder, Match]":
    """The encoder of guesses: that of `--encoder`, else the one that the checkpoint names."""
    from ..audit.public import public_sentences
    from ..audit.retrieval import labelled_texts
    from ..audit.store import match_encoder
    from ..data.encoder_config import EncoderConfig

    if options.encoder and not options.model:
        encoder = _loaded(options, options.encoder)
        own = encoder.encode([*public_sentences(), *labelled_texts()[0]]).numpy()
        return encoder, match_encoder(encoder.config.id, own, parts, options.force)
    try:
        found, config = _match_checkpoint(options, parts)
    except (EmbInvError, OSError) as error:
        if options.encoder:
            raise
        raise EmbInvError(
            f"guesses need the encoder that made the vectors: name it with --encoder, or with --model a checkpoint of "
            f"its vectors. [{one_line(error, 300)}]"
        ) from error
    return _loaded(options, options.encoder or EncoderConfig.of_inverter(config)), found


def _loaded(options: argparse.Namespace, name: "EncoderConfig | str") -> "Encoder":
    """An encoder that reads as much of a text as its network takes."""
    from ..data.encoders import load_encoder
    from ..runtime import prepare_process, process_state

    device = check_device(options.device) if options.device else process_state().device
    with prepare_process():
        encoder = load_encoder(name, device=device)
    if not encoder.can_encode:
        raise EmbInvError(f"guesses need an encoder that can be called here, and {encoder.config.id} cannot be.")
    encoder.read_whole_texts()
    return encoder
