"""Documents to training rows: (input_ids, embedding) pairs on disk, or random spans of tokens on the fly.

Canvas convention: a row has exactly L tokens. They are the text's own tokens (no [CLS] or [SEP] around them), then the
end token, which also fills the rest. A text of L or more tokens is cut to L and has no end token. There is no padding.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from tqdm.auto import tqdm

from .encoders import SentenceEncoder
from .sources import Document, check_vectors

SPLITS = ("train", "validation", "test")
FORMAT_VERSION = 1
TOKENIZE_BATCH = 16_384
# Batches that are embedded in one call, so that sorting by length has something to sort.
BATCHES_PER_CHUNK = 16


# Canvas


class Canvas(NamedTuple):
    """Texts in canvas form.

    Attributes:
        input_ids: (N, L) int64.
        texts: N texts; what the encoder must read, and exactly what `input_ids` decodes to.
        kept: N indexes into the texts that were given.
    """

    input_ids: torch.Tensor
    texts: list[str]
    kept: list[int]


def end_token_id(tokenizer) -> int:
    """The token that ends a text: the tokenizer's eos, or its sep if it has no eos."""
    for token_id in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token_id is not None:
            return token_id
    raise ValueError(f"{type(tokenizer).__name__} has neither an eos nor a sep token to end a text with")


def tokenize(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The texts' token ids, without special tokens and uncut."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def decode_rows(tokenizer, ids: torch.Tensor | np.ndarray, end_id: int) -> list[str]:
    """The texts of canvas rows: what stands before the first end token.

    Args:
        ids: (B, L) integers.
        end_id: see `end_token_id`.
    """
    ids = np.asarray(ids)
    is_end = ids == end_id
    lengths = np.where(is_end.any(axis=1), is_end.argmax(axis=1), ids.shape[1])
    return _decode(tokenizer, [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)])


def _decode(tokenizer, rows: list[list[int]]) -> list[str]:
    # The backend's decoder, since transformers' own cleaning would remove spaces that tokenize differently.
    return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)


def encode_canvas(tokenizer, texts: Sequence[str], length: int) -> Canvas:
    """Tokenizes texts into canvas rows and decodes them back, so that encoder and decoder see the same.

    Dropped are empty texts and those that do not tokenize to the same ids once decoded (unknown characters, special
    tokens written out, a cut inside a character).

    Args:
        tokenizer: the encoder's fast tokenizer.
        texts: any number of texts.
        length: L, the canvas length; longer texts are cut.
    """
    return _canvas(tokenizer, [ids[:length] for ids in tokenize(tokenizer, texts)], length)


def _canvas(tokenizer, rows: list[list[int]], length: int) -> Canvas:
    texts = _decode(tokenizer, rows)
    again = tokenize(tokenizer, texts)
    kept = [i for i, row in enumerate(rows) if row and row == again[i] and texts[i].strip()]
    input_ids = torch.full((len(kept), length), end_token_id(tokenizer))
    for place, i in enumerate(kept):
        input_ids[place, : len(rows[i])] = torch.tensor(rows[i])
    return Canvas(input_ids, [texts[i] for i in kept], kept)


def word_starts(tokenizer) -> np.ndarray:
    """(V,) bool: the tokens with which a word begins; special tokens are none.

    WordPiece marks what continues a word ("##"), SentencePiece and byte-level BPE what begins one ("▁", "Ġ").
    """
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
    if prefix:
        starts = np.array([not token.startswith(prefix) for token in tokens])
    else:
        marks = [np.array([token.startswith(mark) for token in tokens]) for mark in ("▁", "Ġ")]
        starts = max(marks, key=np.sum)
    starts[tokenizer.all_special_ids] = False
    return starts


def split_of(key: str, validation_share: float, test_share: float = 0.0) -> str:
    """The split of a document: a function of its key alone, so neither order nor other documents matter."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < validation_share:
        return "validation"
    return "test" if place < validation_share + test_share else "train"


# Pairs on disk


def prepare(
    documents: Iterable[Document],
    encoder: SentenceEncoder,
    out_dir: str | Path,
    length: int = 32,
    shard_size: int = 50_000,
    validation_share: float = 0.01,
    test_share: float = 0.0,
    batch_size: int = 256,
    spans_per_document: str = "first",
    show_progress: bool = True,
) -> dict:
    """Embeds documents and writes (input_ids, embedding) pairs; killed and called again, it goes on where it was.

    A resumed run writes the same files as an uninterrupted one. Rows with equal ids are written once over all splits.

    Args:
        documents: `(key, text)`, or `(key, text, vector)`, whose vector is taken in place of the encoder's and whose
            text is dropped if longer than the canvas. On resuming, the same documents in the same order.
        encoder: gives the vectors and the tokenizer.
        out_dir: a new folder, or that of an earlier call with the same arguments.
        length: L, tokens in a row; at most the encoder's `max_length`.
        shard_size: rows (all splits together) after which a shard is finished; a few more may be in it.
        validation_share: share of the documents in the validation split.
        test_share: share of the documents in the test split.
        batch_size: texts in one forward pass of the encoder.
        spans_per_document: "first" = the first L tokens; "all" = consecutive pieces, each beginning at a word.
        show_progress: whether to show a bar (on a terminal).

    Returns:
        The manifest: see `read_manifest`.

    Raises:
        ValueError: other arguments or documents than the folder was begun with, no row at all, or a bad vector.
    """
    if spans_per_document not in ("first", "all"):
        raise ValueError(f'spans_per_document must be "first" or "all", not {spans_per_document!r}')
    if not 0 <= validation_share + test_share < 1 or min(validation_share, test_share) < 0:
        raise ValueError(
            f"validation and test shares of {validation_share} and {test_share} leave nothing to train on"
        )
    if min(length, shard_size, batch_size) < 1:
        raise ValueError("length, shard_size and batch_size must be at least 1")
    if length > encoder.config.max_length:
        raise ValueError(
            f"length {length} is beyond the encoder's max_length {encoder.config.max_length}; raise it in its config"
        )
    settings = {
        "format_version": FORMAT_VERSION,
        "encoder_id": encoder.config.id,
        "encoder_revision": encoder.config.revision,
        "encoder_prompt": encoder.config.prompt,
        "encoder_task": encoder.config.task,
        "length": length,
        "embedding_dim": encoder.embedding_dim,
        "end_token_id": end_token_id(encoder.tokenizer),
        "shard_size": shard_size,
        "validation_share": validation_share,
        "test_share": test_share,
        "batch_size": batch_size,
        "spans_per_document": spans_per_document,
    }
    writer = _PairWriter(Path(out_dir), settings)
    if not writer.manifest["complete"]:
        documents = (Document(*document) for document in documents)
        writer.skip_finished(documents)
        with tqdm(
            unit=" documents", initial=writer.manifest["documents"], disable=None if show_progress else True
        ) as bar:
            # A chunk never crosses a shard: a resumed run then forms the same batches, and so the same roundings.
            while chunk := list(islice(documents, min(BATCHES_PER_CHUNK * batch_size, shard_size))):
                writer.add(chunk, encoder)
                bar.update(len(chunk))
        writer.finish()
    return writer.manifest


class _PairWriter:
    """The folder of pairs while it is written. A shard counts once the manifest names it."""

    def __init__(self, out_dir: Path, settings: dict):
        self.out_dir, self.settings = out_dir, settings
        self.features = _features(settings["length"], settings["embedding_dim"])
        self.buffer: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {split: [] for split in SPLITS}
        self.buffered = 0
        self.digest = hashlib.blake2b(digest_size=16)
        self.manifest = self._begin()
        self.seen = self._seen_rows()

    def _begin(self) -> dict:
        if (self.out_dir / "manifest.json").exists():
            manifest = read_manifest(self.out_dir)
            changed = [key for key, value in self.settings.items() if manifest.get(key) != value]
            if changed and manifest["documents"]:
                details = "; ".join(f"{key} was {manifest.get(key)}, now {self.settings[key]}" for key in changed)
                raise ValueError(f"{self.out_dir} was begun with other arguments: {details}; choose another folder")
            if not changed:
                return manifest
        elif self.out_dir.exists() and any(self.out_dir.iterdir()):
            raise ValueError(f"{self.out_dir} holds other files and no manifest.json; choose a new folder")
        manifest = self.settings | {
            "complete": False,
            "documents": 0,
            "documents_digest": self.digest.hexdigest(),
            "rows": dict.fromkeys(SPLITS, 0),
            "dropped": {"unfaithful": 0, "duplicate": 0, "too_long": 0},
            "shards": {split: [] for split in SPLITS},
        }
        self.out_dir.mkdir(parents=True, exist_ok=True)
        _write_json(self.out_dir / "manifest.json", manifest)
        return manifest

    def _seen_rows(self) -> set[int]:
        files = [self.out_dir / split / name for split in SPLITS for name in self.manifest["shards"][split]]
        return {_row_hash(row) for file in files for row in _stored_ids(file)}

    def skip_finished(self, documents: Iterator[Document]) -> None:
        """Passes over the documents of finished shards, and makes sure that they are the same ones."""
        for document in islice(documents, self.manifest["documents"]):
            self._note(document)
        if self.digest.hexdigest() != self.manifest["documents_digest"]:
            raise ValueError(
                f"{self.out_dir} was begun with other documents: the first {self.manifest['documents']} must be "
                "the same, in the same order; choose another folder"
            )

    def _note(self, document: Document) -> None:
        self.digest.update(f"{document.key}\0{document.text}\0".encode("utf-8", "replace"))

    def add(self, chunk: list[Document], encoder: SentenceEncoder) -> None:
        """Turns a chunk of documents into rows; writes a shard when there are enough of them."""
        rows, owners = self._pieces(chunk, encoder.tokenizer)
        canvas = _canvas(encoder.tokenizer, rows, self.settings["length"])
        self.manifest["dropped"]["unfaithful"] += len(rows) - len(canvas.kept)
        ids = canvas.input_ids.numpy().astype(np.int32)
        new = [place for place in range(len(ids)) if self._is_new(ids[place])]
        self.manifest["dropped"]["duplicate"] += len(ids) - len(new)
        owners = [owners[canvas.kept[place]] for place in new]
        vectors = self._embed(
            [canvas.texts[place] for place in new], [chunk[owner].vector for owner in owners], encoder
        )
        shares = self.settings["validation_share"], self.settings["test_share"]
        splits = np.array([split_of(chunk[owner].key, *shares) for owner in owners], dtype=object)
        for split in SPLITS:
            self.buffer[split].append((ids[new][splits == split], vectors[splits == split]))
        self.buffered += len(new)
        for document in chunk:
            self._note(document)
        self.manifest["documents"] += len(chunk)
        if self.buffered >= self.settings["shard_size"]:
            self.flush()

    def _pieces(self, chunk: list[Document], tokenizer) -> tuple[list[list[int]], list[int]]:
        """Token rows of at most L, and for each the index of its document."""
        length, every = self.settings["length"], self.settings["spans_per_document"] == "all"
        starts = word_starts(tokenizer) if every else None
        rows, owners = [], []
        for index, ids in enumerate(tokenize(tokenizer, [document.text for document in chunk])):
            if chunk[index].vector is not None and len(ids) > length:
                # A vector of the whole text does not belong to its first L tokens.
                self.manifest["dropped"]["too_long"] += 1
                continue
            pieces = _split_at_words(ids, length, starts) if every else [ids[:length]]
            rows += pieces
            owners += [index] * len(pieces)
        return rows, owners

    def _is_new(self, row: np.ndarray) -> bool:
        before = len(self.seen)
        self.seen.add(_row_hash(row))
        return len(self.seen) > before

    def _embed(self, texts: list[str], vectors: list[np.ndarray | None], encoder: SentenceEncoder) -> np.ndarray:
        """(N, D) float16: the given vector where there is one, else the encoder's."""
        result = np.empty((len(texts), encoder.embedding_dim), np.float16)
        unknown = [place for place, vector in enumerate(vectors) if vector is None]
        result[unknown] = encoder.encode([texts[place] for place in unknown], self.settings["batch_size"]).numpy()
        for place, vector in enumerate(vectors):
            if vector is not None:
                try:
                    result[place] = check_vectors(np.asarray(vector)[None], encoder.embedding_dim)[0]
                except ValueError as error:
                    raise ValueError(f"the vector of {texts[place]!r}: {error}") from error
        return result

    def flush(self) -> None:
        """Writes the buffered rows as shards, then the manifest, which makes them count."""
        for split, parts in self.buffer.items():
            ids, vectors = (np.concatenate(columns) for columns in zip(*parts, strict=True)) if parts else ([], [])
            if len(ids):
                names = self.manifest["shards"][split]
                names.append(f"shard-{len(names):05d}.arrow")
                _write_shard(self.out_dir / split / names[-1], self.features, ids, vectors)
                self.manifest["rows"][split] += len(ids)
            self.buffer[split] = []
        self.buffered = 0
        self.manifest["documents_digest"] = self.digest.hexdigest()
        _write_json(self.out_dir / "manifest.json", self.manifest)

    def finish(self) -> None:
        """Writes what is left and declares the folder complete."""
        if not self.buffered and not any(self.manifest["rows"].values()):
            raise ValueError(
                f"{self.manifest['documents']} documents gave no row; dropped: {self.manifest['dropped']}"
            )
        self.manifest["complete"] = True
        self.flush()


def _split_at_words(ids: list[int], length: int, starts: np.ndarray) -> list[list[int]]:
    """Consecutive pieces of L tokens; the rest of a word that a cut divides is left out."""
    pieces, begin = [ids[:length]], length
    while begin < len(ids):
        if starts[ids[begin]]:
            pieces.append(ids[begin : begin + length])
            begin += length
        else:
            begin += 1
    return pieces


def _row_hash(row: np.ndarray) -> int:
    # 64 bits: among 10 million rows, two different ones collide with a chance of 3 in a million.
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big")


def _features(length: int, embedding_dim: int) -> Features:
    return Features(
        {
            "input_ids": List(Value("int32"), length=length),
            "embedding": List(Value("float16"), length=embedding_dim),
        }
    )


def _write_shard(path: Path, features: Features, ids: np.ndarray, vectors: np.ndarray) -> None:
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]) for rows in (ids, vectors)]
    table = pa.Table.from_arrays(columns, schema=features.arrow_schema)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with pa.ipc.new_stream(temporary, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    os.replace(temporary, path)


def _stored_ids(path: Path) -> Iterator[np.ndarray]:
    """The rows of `input_ids` in a shard, each (L,) int32."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from batch["input_ids"].flatten().to_numpy().reshape(len(batch), -1)


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_manifest(out_dir: str | Path) -> dict:
    """What `prepare` knows about its folder.

    Keys: the arguments (`encoder_id`, `encoder_revision`, `encoder_prompt`, `encoder_task`, `length`, `shard_size`,
    `validation_share`, …), `embedding_dim`, `end_token_id`, `format_version`, `complete`, `documents` (read so far),
    `rows` and `shards` by split, and `dropped` rows by reason.

    Raises:
        ValueError: no manifest, a damaged one, or one of another format version.
    """
    path = Path(out_dir) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{out_dir} holds no manifest.json; make the folder with `embinv prepare`") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version}; this software reads {FORMAT_VERSION}: prepare the folder again"
        )
    return manifest


def load_pairs(out_dir: str | Path, split: str = "train") -> Dataset:
    """The rows of one split, memory-mapped: `input_ids` (L,) int32 and `embedding` (D,) float16.

    Raises:
        ValueError: not a finished folder of `prepare`, no such split, or a shard is missing.
    """
    manifest = read_manifest(out_dir)
    if not manifest["complete"]:
        raise ValueError(
            f"{out_dir} is not finished ({manifest['documents']} documents); run its `embinv prepare` again"
        )
    names = manifest["shards"].get(split)
    if not names:
        present = [name for name in SPLITS if manifest["rows"][name]]
        raise ValueError(f"{out_dir} has no rows in split {split!r}; present: {', '.join(present)}")
    files = [Path(out_dir) / split / name for name in names]
    if missing := [str(file) for file in files if not file.exists()]:
        raise ValueError(f"{missing[0]} is missing; prepare the folder again")
    return concatenate_datasets([Dataset.from_file(str(file)) for file in files])


# Spans on the fly


@dataclass(frozen=True)
class TokenizedCorpus:
    """The documents of one split as token ids, without special tokens; made by `build`.

    Attributes:
        ids: (T,) int32, all documents one after the other.
        offsets: (N + 1,) int64; document i is `ids[offsets[i]:offsets[i + 1]]`.
        is_word_start: (V,) bool, see `word_starts`.
        end_token_id: see `end_token_id`.
    """

    ids: np.ndarray
    offsets: np.ndarray
    is_word_start: np.ndarray
    end_token_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def build(
        cls,
        documents: Iterable[Document],
        tokenizer,
        cache_dir: str | Path | None = None,
        split: str = "train",
        validation_share: float = 0.01,
        test_share: float = 0.0,
        show_progress: bool = True,
    ) -> "TokenizedCorpus":
        """Tokenizes the documents of one split; those with unknown or special tokens are left out.

        Args:
            documents: `(key, text)`; not read if the cache holds them already.
            tokenizer: the encoder's fast tokenizer.
            cache_dir: a folder for this corpus only; None = keep in memory. Other tokenizers, shares and splits get
                their own files in it, changed documents do not: then give another folder.
            split: "train", "validation" or "test", decided for each document as in `prepare`.
            validation_share: share of the documents in the validation split.
            test_share: share of the documents in the test split.
            show_progress: whether to show a bar (on a terminal).

        Raises:
            ValueError: no such split, or no document in it.
        """
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        facts = word_starts(tokenizer), end_token_id(tokenizer)
        mine = (text for key, text, *_ in documents if split_of(key, validation_share, test_share) == split)
        if cache_dir is None:
            return cls(*_tokenize_all(mine, tokenizer, split, show_progress), *facts)
        folder = Path(cache_dir) / f"{split}-{_fingerprint(tokenizer, validation_share, test_share)}"
        if not folder.exists():
            _save_arrays(folder, *_tokenize_all(mine, tokenizer, split, show_progress))
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "offsets")), *facts)


def _tokenize_all(texts: Iterator[str], tokenizer, split: str, show_progress: bool) -> tuple[np.ndarray, np.ndarray]:
    is_special = np.zeros(len(tokenizer), bool)
    is_special[tokenizer.all_special_ids] = True
    parts, lengths = [], []
    with tqdm(unit=" documents", disable=None if show_progress else True) as bar:
        while batch := list(islice(texts, TOKENIZE_BATCH)):
            rows = [np.array(row, dtype=np.int32) for row in tokenize(tokenizer, batch)]
            # A special token in a text would end it early, or be lost when it is decoded for the encoder.
            rows = [ids for ids in rows if len(ids) and not is_special[ids].any()]
            parts += [np.concatenate(rows)] if rows else []
            lengths += map(len, rows)
            bar.update(len(batch))
    if not parts:
        raise ValueError(f"no document with known tokens in split {split!r}; give more text or another share")
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)])


def _fingerprint(tokenizer, *shares: float) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call left behind, not what the tokenizer is.
    state["truncation"] = state["padding"] = None
    return hashlib.blake2b(json.dumps([state, shares]).encode(), digest_size=8).hexdigest()


def _save_arrays(folder: Path, ids: np.ndarray, offsets: np.ndarray) -> None:
    """Both files or none; several processes may do this at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(exist_ok=True)
    np.save(temporary / "ids.npy", ids)
    np.save(temporary / "offsets.npy", offsets)
    try:
        os.replace(temporary, folder)
    except OSError:
        if not folder.exists():
            raise
        # Another process was first, with the same content.
        shutil.rmtree(temporary)


class SpanSampler:
    """Draws random canvas rows from a corpus; a batch depends on (seed, batch_index, its size, canvas) alone.

    Half of the rows (`whole_share`) are documents from their beginning, the others spans that begin and, if they can,
    end at a word; a span's length is drawn uniformly. Documents are drawn uniformly.

    Args:
        corpus: where to draw from.
        length: L, the canvas length.
        seed: a whole number of at least 0.
        min_tokens: shorter documents are not drawn, nor shorter spans.
        whole_share: share of the rows that are whole documents, cut at the canvas.
    """

    # A word of more tokens than this counts as beginning with its document.
    LONGEST_WORD = 16

    def __init__(self, corpus: TokenizedCorpus, length: int, seed: int, min_tokens: int = 3, whole_share: float = 0.5):
        if not 1 <= min_tokens <= length:
            raise ValueError(f"min_tokens must be between 1 and the length {length}, not {min_tokens}")
        if not 0 <= whole_share <= 1:
            raise ValueError(f"whole_share must be between 0 and 1, not {whole_share}")
        self.corpus, self.length, self.seed = corpus, length, seed
        self.min_tokens, self.whole_share = min_tokens, whole_share
        lengths = np.diff(corpus.offsets)
        order = np.argsort(lengths, kind="stable")
        # Sorted by length, the documents that fit a canvas are the first ones.
        self._documents = order[lengths[order] >= min_tokens]
        self._lengths = lengths[self._documents]
        if not len(self._documents):
            raise ValueError(f"none of the {len(corpus)} documents has {min_tokens} tokens")

    def batch(self, batch_index: int, batch_size: int, canvas: int | None = None) -> torch.Tensor:
        """One batch of rows.

        Args:
            batch_index: which batch; the same index gives the same rows.
            batch_size: B.
            canvas: C, columns of the result; None = L. With C < L only texts of at most C tokens are drawn, and whole
                documents only if their end token fits as well.

        Returns:
            (B, C) int64.
        """
        width = self.length if canvas is None else canvas
        if not self.min_tokens <= width <= self.length:
            raise ValueError(f"canvas must be between {self.min_tokens} and {self.length} tokens, not {width}")
        rng = np.random.default_rng([self.seed, batch_index])
        which, kind, where, how_long = rng.random((4, batch_size))
        fitting = len(self._lengths) if width == self.length else np.searchsorted(self._lengths, width)
        whole = (kind < self.whole_share) & (fitting > 0)
        drawn = (which * np.where(whole, fitting, len(self._lengths))).astype(np.int64)
        begin, size = self.corpus.offsets[self._documents[drawn]], self._lengths[drawn]
        room = (where * (size - self.min_tokens + 1)).astype(np.int64)
        start = np.where(whole, begin, self._word_start(begin, begin + room))
        wanted = self.min_tokens + (how_long * (width - self.min_tokens + 1)).astype(np.int64)

        columns = np.arange(width + 1)
        positions = start[:, None] + columns
        tokens = self.corpus.ids[np.minimum(positions, len(self.corpus.ids) - 1)].astype(np.int64)
        rest = (begin + size - start)[:, None]
        ends = (self.corpus.is_word_start[tokens] | (columns >= rest)) & (columns >= self.min_tokens)
        length = np.where(whole, width, _nearest_end(ends, wanted))[:, None]
        is_text = columns < np.minimum(length, rest)
        return torch.from_numpy(np.where(is_text, tokens, self.corpus.end_token_id)[:, :width])

    def _word_start(self, begin: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The nearest word start at or before each position, or its document's beginning."""
        window = np.maximum(position[:, None] - np.arange(self.LONGEST_WORD), begin[:, None])
        is_start = self.corpus.is_word_start[self.corpus.ids[window]]
        first = window[np.arange(len(window)), is_start.argmax(axis=1)]
        return np.where(is_start.any(axis=1), first, begin)


def _nearest_end(ends: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """In each row of (B, C + 1) bool, the first True column from `wanted` on; else the last one; else `wanted`."""
    later = ends & (np.arange(ends.shape[1]) >= wanted[:, None])
    last = ends.shape[1] - 1 - ends[:, ::-1].argmax(axis=1)
    return np.where(later.any(axis=1), later.argmax(axis=1), np.where(ends.any(axis=1), last, wanted))
