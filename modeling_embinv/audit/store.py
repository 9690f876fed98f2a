"""The store that is audited: its collections, a sample of each, and the checkpoint that their vectors fit."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..configuration_embinv import EmbInvConfig
from ..data.files import one_line, short_names
from ..errors_embinv import EmbInvError
from ..stores.copies import changed_message
from ..stores.locations import SeveralCollectionsError
from ..stores.rows import Skipped, VectorBatch
from ..stores.vectors import VectorSource
from .fingerprint import Origin, best, encoder_origin, origin
from .sample import BATCH, Sample, digested, draw_each, join

# the name of a collection, or None for a store that is one → the opened source
Opener = Callable[[str | None], VectorSource]


# what is to be done where no vectors fit
_ANOTHER_MODEL = "Another encoder needs another checkpoint (--model)"
_RIGHT_MODEL = "Name the right checkpoint with --model, give known texts and their vectors with --pairs"
_RIGHT_ENCODER = "Name the encoder that made them with --encoder"


class Part(NamedTuple):
    """A collection, or a store that is one.

    Attributes:
        name: None for a store that is one.
        path, collection, column, id_column, text_column, skipped: as of `VectorSource`.
        samples: of its rows, one for each size that was asked for; the first is the one that is attacked.
    """

    name: str | None
    path: str
    collection: str | None
    column: str
    id_column: str | None
    text_column: str | None
    skipped: Skipped
    samples: list[Sample]

    @property
    def sample(self) -> Sample:
        """The rows that are attacked, and that the checkpoint is compared with."""
        return self.samples[0]


def open_parts(open_part: Opener, limits: Sequence[int], seed: int) -> tuple[list[Part], list[str]]:
    """All collections of a store but views of others, or the one that `open_part` opens without a name.

    Args:
        open_part: opens one; it is read once, and closed before the next.
        limits: rows of each sample of a collection, at most.
        seed: of the draws.

    Returns:
        The parts, and notes: of views, and of each of several collections without a usable vector. They are left out.

    Raises:
        EmbInvError: as `open_part` and `draw_each`, or where no collection holds a vector.
    """
    try:
        return _drawn(open_part, [None], limits, seed)
    except SeveralCollectionsError as error:
        parts, left_out = _drawn(open_part, error.names, limits, seed)
        if error.views:
            shown = short_names(error.views)
            left_out.append(f"views are left out, as they may show the same rows again: {shown} (--table takes one)")
        return parts, left_out


def _drawn(
    open_part: Opener, names: Sequence[str | None], limits: Sequence[int], seed: int
) -> tuple[list[Part], list[str]]:
    """A sample of each size of each collection; empty ones are left out of several, and unusable ones with a note."""
    parts, left_out = [], []
    for name in names:
        source = open_part(name)
        count = source.count()
        if len(names) > 1 and not count:
            continue
        try:
            samples = draw_each(source, limits, seed)
        except EmbInvError:
            if len(names) == 1 or source.skipped.count < count:
                raise
            left_out.append(f"the collection {name} is left out: {source.skipped}")
            continue
        columns = source.column, source.id_column, source.text_column
        parts.append(Part(name, source.path, source.collection, *columns, source.skipped, samples))
    if not parts and left_out:
        raise EmbInvError(f"no collection of the store holds a usable vector: {one_line(left_out[0])}.")
    if not parts:
        raise EmbInvError("all collections of the store are empty.")
    return parts, left_out


def whole_store(
    open_part: Callable[[Part], VectorSource], parts: Sequence[Part]
) -> Iterator[tuple[str | None, VectorBatch]]:
    """All rows of the collections once more, in flat memory: the collection's name, and some of its rows.

    Args:
        open_part: opens a collection anew.
        parts: the collections.

    Raises:
        EmbInvError: the store has changed since its sample was drawn.
    """
    for part in parts:
        digest = hashlib.blake2b(digest_size=16)
        for batch in open_part(part).batches(BATCH):
            digest.update(digested(batch))
            yield part.name, batch
        if digest.hexdigest() != part.sample.digest:
            raise EmbInvError(changed_message(part.path))


def join_parts(parts: Sequence[Part], limits: Sequence[int], seed: int) -> list[Sample]:
    """The samples of all collections together, of each size, see `join`."""
    if len(parts) == 1:
        return parts[0].samples
    return [
        join({str(part.name): part.samples[index] for part in parts}, limit, seed)
        for index, limit in enumerate(limits)
    ]


def describe(parts: Sequence[Part], sample: Sample) -> dict[str, Any]:
    """The store as the report has it."""
    first = parts[0]
    name = first.path.encode("utf-8", "replace").decode("utf-8")  # a file's name may be in any encoding
    return {
        "name": name, "column": first.column, "id_column": first.id_column, "text_column": first.text_column,
        "collection": first.collection if len(parts) == 1 else None,
        "rows": sample.total, "digest": sample.digest, "skipped": _skipped(parts),
        "collections": None if sample.collections is None else [
            {"name": part.name, "rows": part.sample.total, "drawn": sample.collections.count(str(part.name))}
            for part in parts
        ],
    }  # fmt: skip


def _skipped(parts: Sequence[Part]) -> dict[str, Any]:
    examples = [
        (row, reason if part.name is None else f"{reason} ({part.name})")
        for part in parts
        for row, reason in part.skipped.examples
    ]
    return {"count": sum(part.skipped.count for part in parts), "examples": examples}


class Match(NamedTuple):
    """A checkpoint, and the collections that it can be tried on.

    Attributes:
        origin: of the vectors of the largest collection.
        parts: the collections.
        notes: what is odd about their vectors, and which collections are left out.
    """

    origin: Origin
    parts: list[Part]
    notes: list[str]


def match(models: Mapping[str, EmbInvConfig], parts: Sequence[Part], force: bool) -> Match:
    """The checkpoint whose encoder most of the rows fit, the first of several alike.

    Args:
        models: the configurations of the checkpoints, by name.
        parts: the collections.
        force: whether vectors of the right width are taken that look like another encoder's.

    Raises:
        EmbInvError: no collection fits any of them; another width cannot be forced.
    """
    found = [[origin(name, config, part.sample.vectors) for part in parts] for name, config in models.items()]
    return _match(found, parts, force, _ANOTHER_MODEL, _RIGHT_MODEL)


def match_encoder(encoder: str, own: np.ndarray, parts: Sequence[Part], force: bool) -> Match:
    """The collections whose vectors look like an encoder's; there is no checkpoint.

    Args:
        encoder: its id.
        own: (m, D), its vectors of at least 100 texts.
        parts, force: as of `match`.

    Raises:
        EmbInvError: as `match`.
    """
    found = [encoder_origin(encoder, own, part.sample.vectors) for part in parts]
    return _match([found], parts, force, _RIGHT_ENCODER, _RIGHT_ENCODER)


def _match(found: Sequence[list[Origin]], parts: Sequence[Part], force: bool, width: str, fit: str) -> Match:
    """The first of `found` that most rows fit; `width` and `fit` say what is to be done where none does."""

    def rows(origins: Sequence[Origin]) -> int:
        return sum(part.sample.total for part, one in zip(parts, origins, strict=True) if one.looks_like is None)

    origins = max(found, key=rows)
    if not rows(origins):
        largest = max(range(len(parts)), key=lambda index: parts[index].sample.total)
        nearest = best([own[largest] for own in found])
        if not nearest.has_width:
            raise EmbInvError(f"{nearest}. {width}.")
        if not force:
            raise EmbInvError(f"{nearest}. {fit}, or go on with --force.")
        origins = next(own for own in found if own[largest] is nearest)
    kept, notes = [], []
    for part, one in zip(parts, origins, strict=True):
        if one.looks_like is None or (force and one.has_width):
            kept.append((part, one))
            notes += [note for note in one.notes if note not in notes]
        else:
            notes.append(f"the collection {part.name} is left out: {one.looks_like}")
    largest_part = max(kept, key=lambda pair: pair[0].sample.total)
    return Match(largest_part[1], [part for part, _ in kept], notes)
