"""Documents to (input_ids, embedding) pairs on disk; killed and called again, it resumes."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..errors_embinv import EmbInvError
from ..inputs_embinv import check_embeddings
from ..integrity_embinv import vocabulary_checksum
from .canvas import canvas_of_rows
from .encoder_config import same_setting
from .encoders import Encoder
from .pairs import FORMAT_VERSION, MANIFEST, read_manifest, shard_files, stored_ids, write_shard
from .parts import LOCK, PartFolder, locked
from .sources import SPLITS, Document, split_of
from .tokens import tokenize

# Batches that are embedded in one call, so that sorting by length has something to sort.
BATCHES_PER_CHUNK = 16
# A shard is finished early where so much time has passed since the last one, so that a kill loses no more.
SAVE_SECONDS = 60.0
# Digests in the manifest, and what of the documents each is of.
_DIGESTS = {"documents_digest": "documents", "vectors_digest": "vectors"}


def prepare(
    documents: Iterable[Document],
    encoder: Encoder,
    out_dir: str | Path,
    length: int = 32,
    shard_size: int = 50_000,
    validation_share: float = 0.01,
    test_share: float = 0.0,
    batch_size: int = 256,
    spans_per_document: str = "first",
    show_progress: bool = True,
) -> dict[str, Any]:
    """Embeds documents and writes (input_ids, embedding) pairs; killed and called again, it resumes.

    A resumed run writes the same rows in the same order as an uninterrupted one. Rows with equal ids are written once
    over all splits. For a finished folder the documents are read, to make sure that they are the same, and not
    embedded again.

    Args:
        documents: `(key, text)`, or `(key, text, vector)`, whose vector is taken in place of the encoder's and whose
            text is dropped if longer than the canvas. Called again, the same documents in the same order.
        encoder: gives the vectors and the tokenizer.
        out_dir: a new folder, or that of an earlier call with the same arguments.
        length: L, tokens in a row; at most the encoder's `max_length`.
        shard_size: rows (all splits together) after which a shard is finished; a few more may be in it, and fewer
            where a minute has passed.
        validation_share: share of the documents in the validation split.
        test_share: share of the documents in the test split.
        batch_size: texts in one forward pass of the encoder.
        spans_per_document: "first" = the first L tokens; "all" = consecutive pieces, each beginning at a word.
        show_progress: whether to show a bar (on a terminal).

    Returns:
        The manifest: see `read_manifest`.

    Raises:
        EmbInvError: other arguments, documents or vectors than the folder was begun with, or another tokenizer; a
            shard that is missing or damaged; no row at all, or a bad vector.
    """
    arguments: dict[str, Any] = {
        "length": length,
        "shard_size": shard_size,
        "validation_share": validation_share,
        "test_share": test_share,
        "batch_size": batch_size,
        "spans_per_document": spans_per_document,
    }
    _check_arguments(encoder, **arguments)
    with locked(Path(out_dir)):
        writer = _PairWriter(Path(out_dir), encoder, arguments)
        documents = (Document(*document) for document in documents)
        writer.check_same(documents)
        if not writer.manifest["complete"]:
            writer.recall_rows()
            # A chunk never crosses a shard: a resumed run then forms the same batches, and so the same roundings.
            chunk_size = min(BATCHES_PER_CHUNK * batch_size, shard_size)
            done, hidden = writer.manifest["documents"], None if show_progress else True
            with tqdm(unit=" documents", initial=done, disable=hidden) as bar:
                while chunk := list(islice(documents, chunk_size)):
                    writer.add(chunk)
                    bar.update(len(chunk))
            writer.finish()
    return writer.manifest


def _check_arguments(
    encoder: Encoder,
    length: int,
    shard_size: int,
    validation_share: float,
    test_share: float,
    batch_size: int,
    spans_per_document: str,
) -> None:
    if spans_per_document not in ("first", "all"):
        raise EmbInvError(f'spans_per_document must be "first" or "all", not {spans_per_document!r}')
    if min(validation_share, test_share) < 0 or validation_share + test_share > 1:
        raise EmbInvError(f"validation and test shares {validation_share} and {test_share} are not parts of a whole")
    if min(length, shard_size, batch_size) < 1:
        raise EmbInvError("length, shard_size and batch_size must be at least 1")
    if length > encoder.config.max_length:
        raise EmbInvError(
            f"length {length} is beyond the encoder's max_length {encoder.config.max_length}; raise it in its config"
        )


class _PairWriter:
    """The folder of pairs while it is written. A shard counts once the manifest names it."""

    def __init__(self, out_dir: Path, encoder: Encoder, arguments: dict[str, Any]) -> None:
        self.folder, self.encoder = PartFolder(out_dir, MANIFEST, same_setting), encoder
        self.settings: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "encoder_id": encoder.config.id,
            "encoder_revision": encoder.config.revision,
            "encoder_prompt": encoder.config.prompt,
            "encoder_task": encoder.config.task,
            "embedding_dim": encoder.embedding_dim,
            "end_token_id": encoder.vocabulary.end,
            "vocabulary": vocabulary_checksum(encoder.tokenizer),
        } | arguments
        self.length, self.shares = arguments["length"], (arguments["validation_share"], arguments["test_share"])
        every = arguments["spans_per_document"] == "all"
        self.starts = encoder.vocabulary.word_starts if every else None
        self.buffer: dict[str, list[tuple[NDArray[np.int32], NDArray[np.float16]]]] = {split: [] for split in SPLITS}
        self.buffered = 0
        self.digests = {name: hashlib.blake2b(digest_size=16) for name in _DIGESTS}
        self.seen: set[int] = set()
        self.saved = time.monotonic()
        self.manifest = self._begin()

    def _begin(self) -> dict[str, Any]:
        """The manifest of a folder that this run has begun, or a new one."""
        folder = self.folder.folder
        if self.folder.record.exists():
            manifest = read_manifest(folder)
            manifest.setdefault("vocabulary", self.settings["vocabulary"])  # an older version noted none
            if self.folder.check_run(manifest, self.settings, has_parts=manifest["documents"] > 0):
                for split in SPLITS:
                    shard_files(folder, manifest, split)  # raises where one is missing
                return manifest
        elif any(not path.name.startswith((f"{MANIFEST}.", LOCK)) for path in folder.glob("*")):  # a kill leaves these
            raise EmbInvError(f"{folder} holds other files and no {MANIFEST}; choose a new folder")
        manifest = self.settings | {
            "complete": False,
            "documents": 0,
            **self._hex_digests(),
            "rows": dict.fromkeys(SPLITS, 0),
            "dropped": {"unfaithful": 0, "duplicate": 0, "too_long": 0, "empty": 0},
            "shards": {split: [] for split in SPLITS},
        }
        self.folder.note(manifest)
        return manifest

    def check_same(self, documents: Iterator[Document]) -> None:
        """Passes over the documents of finished shards, and makes sure that they and their vectors are the same."""
        folder, count = self.folder.folder, self.manifest["documents"]
        for document in islice(documents, count):
            self._note(document)
        for name, digest in self._hex_digests().items():
            if digest != self.manifest.get(name, digest):  # an older version kept no digest of the vectors
                raise EmbInvError(
                    f"{folder} was begun with other {_DIGESTS[name]}: the first {count} must be the same, in the same "
                    "order; choose another folder"
                )
        if self.manifest["complete"] and next(documents, None) is not None:
            raise EmbInvError(
                f"{folder} is finished with {count} documents, and more are given; choose another folder"
            )

    def recall_rows(self) -> None:
        """Reads the rows of finished shards, which are not written again."""
        for split in SPLITS:
            self.seen.update(map(_row_hash, stored_ids(self.folder.folder, self.manifest, split)))

    def _note(self, document: Document) -> None:
        self.digests["documents_digest"].update(f"{document.key}\0{document.text}\0".encode("utf-8", "replace"))
        if document.vector is not None:
            self.digests["vectors_digest"].update(np.asarray(document.vector, "<f4").tobytes())

    def _hex_digests(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self.digests.items()}

    def add(self, chunk: list[Document]) -> None:
        """Turns a chunk of documents into rows; writes a shard when there are enough of them."""
        rows, owners = self._pieces(chunk)
        canvas = canvas_of_rows(self.encoder.vocabulary, rows, self.length)
        ids = canvas.input_ids.numpy().astype(np.int32)
        new = [index for index in range(len(ids)) if self._is_new(ids[index])]
        self.manifest["dropped"]["unfaithful"] += len(rows) - len(ids)
        self.manifest["dropped"]["duplicate"] += len(ids) - len(new)
        documents = [chunk[owners[canvas.kept[index]]] for index in new]
        vectors = self._embed([canvas.texts[index] for index in new], [document.vector for document in documents])
        splits = np.array([split_of(document.key, *self.shares) for document in documents], dtype=object)
        for split in SPLITS:
            self.buffer[split].append((ids[new][splits == split], vectors[splits == split]))
        self.buffered += len(new)
        for document in chunk:
            self._note(document)
        self.manifest["documents"] += len(chunk)
        if self.buffered >= self.settings["shard_size"] or time.monotonic() - self.saved >= SAVE_SECONDS:
            self.flush()

    def _pieces(self, chunk: list[Document]) -> tuple[list[list[int]], list[int]]:
        """Token rows of at most L, and for each the index of its document."""
        rows, owners = [], []
        for index, ids in enumerate(tokenize(self.encoder.tokenizer, [document.text for document in chunk])):
            if not ids:
                # an older version began the folder without this count
                self.manifest["dropped"]["empty"] = self.manifest["dropped"].get("empty", 0) + 1
                continue
            if chunk[index].vector is not None and len(ids) > self.length:
                # A vector of the whole text does not belong to its first L tokens.
                self.manifest["dropped"]["too_long"] += 1
                continue
            pieces = [ids[: self.length]] if self.starts is None else _split_at_words(ids, self.length, self.starts)
            rows += pieces
            owners += [index] * len(pieces)
        return rows, owners

    def _is_new(self, row: NDArray[np.int32]) -> bool:
        before = len(self.seen)
        self.seen.add(_row_hash(row))
        return len(self.seen) > before

    def _embed(self, texts: list[str], vectors: list[NDArray[np.float32] | None]) -> NDArray[np.float16]:
        """(N, D) float16: the given vector where there is one, else the encoder's."""
        result = np.empty((len(texts), self.encoder.embedding_dim), np.float16)
        unknown = [index for index, vector in enumerate(vectors) if vector is None]
        result[unknown] = self.encoder.encode([texts[i] for i in unknown], self.settings["batch_size"]).numpy()
        for index, vector in enumerate(vectors):
            if vector is not None:
                try:
                    result[index] = check_embeddings(vector, self.encoder.embedding_dim)[0].numpy()
                except EmbInvError as error:
                    raise EmbInvError(f"the vector of {texts[index]!r}: {error}") from error
        return result

    def flush(self) -> None:
        """Writes the buffered rows as shards, then the manifest, which makes them count."""
        for split in SPLITS:
            parts, self.buffer[split] = self.buffer[split], []
            if count := sum(len(ids) for ids, _ in parts):
                names = self.manifest["shards"][split]
                names.append(f"shard-{len(names):05d}.arrow")
                ids, vectors = map(np.concatenate, zip(*parts, strict=True))
                with self.folder.written(f"{split}/{names[-1]}") as partial:
                    write_shard(partial, ids, vectors)
                self.manifest["rows"][split] += count
        self.buffered = 0
        self.manifest |= self._hex_digests()
        self.folder.note(self.manifest)
        self.saved = time.monotonic()

    def finish(self) -> None:
        """Writes what is left and declares the folder complete."""
        if not self.buffered and not any(self.manifest["rows"].values()):
            raise EmbInvError(_why_none(self.manifest["documents"], self.manifest["dropped"], self.length))
        self.manifest["complete"] = True
        self.flush()


def _why_none(count: int, dropped: dict[str, int], length: int) -> str:
    """Why no document gave a row, in a line."""
    if count and dropped.get("empty") == count:
        return f"{count} documents gave no row: all texts are empty; name their column with --text-column"
    if count and dropped["too_long"] == count:
        return (
            f"{count} documents gave no row: all texts have more than {length} tokens, and the vector of a whole text "
            "is none of its beginning; raise --length"
        )
    reasons = ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in dropped.items() if number)
    return f"{count} documents gave no row" + (f"; dropped: {reasons}" if reasons else "")


def _split_at_words(ids: list[int], length: int, starts: NDArray[np.bool_]) -> list[list[int]]:
    """Consecutive pieces of L tokens; the rest of a word that a cut divides is left out."""
    pieces, begin = [ids[:length]], length
    while begin < len(ids):
        if starts[ids[begin]]:
            pieces.append(ids[begin : begin + length])
            begin += length
        else:
            begin += 1
    return pieces


def _row_hash(row: NDArray[np.int32]) -> int:
    # 64 bits: among 10 million rows, two different ones collide with a chance of 3 in a million.
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big")
