"""Inverts vectors: a few at a time, or a file of any size in parts that survive a kill and are shared by processes."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from rich.console import Console
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from .batches import generator_for
from .int8_embinv import Int8Linear
from .modeling_embinv import EmbInvForMaskedDiffusion
from .parts import PartFolder
from .terminal import print_inversions
from .vectors import check_vectors, count_vectors, iter_vectors

# Rows of one part: what a kill loses at most, what processes share, and the largest batch.
PART_ROWS = 512
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "text": pa.string(),
        "confidence": pa.float32(),
        "tokens": pa.list_(pa.string()),
        "token_confidence": pa.list_(pa.float32()),
    }
)


class Inversion(NamedTuple):
    """One vector's text.

    Attributes:
        row: the vector's number in its source, from 0.
        text: what was read out of it.
        confidence: arithmetic mean of `token_confidence`: the share of tokens that the model expects to be right.
        tokens: the text's tokens, as its tokenizer's vocabulary spells them.
        token_confidence: the model's probability of each token when it was written.
    """

    row: int
    text: str
    confidence: float
    tokens: list[str]
    token_confidence: list[float]


def parse_vector(text: str, embedding_dim: int) -> np.ndarray:
    """A vector typed as JSON, `"[0.1, -0.2, …]"`, as (1, D) float32.

    Raises:
        ValueError: no JSON list of `embedding_dim` numbers.
    """
    try:
        values = json.loads(text, parse_int=float)
    except json.JSONDecodeError as error:
        raise ValueError(f"the vector is not JSON like [0.1, -0.2]: {error}") from error
    if not isinstance(values, list) or any(type(value) is not float for value in values):
        raise ValueError("the vector must be a JSON list of numbers, like [0.1, -0.2]")
    if len(values) != embedding_dim:
        raise ValueError(f"the vector has {len(values)} numbers; this model inverts vectors of {embedding_dim}")
    return np.array([values]).astype(np.float32)


def invert_vectors(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    vectors: np.ndarray,
    batch_size: int = 64,
    settings: dict | None = None,
    seed: int = 0,
    first_row: int = 0,
    feedback: Callable | str | None = None,
) -> Iterator[Inversion]:
    """Inverts vectors, batch by batch as the iterator advances.

    Sampling depends on the seed, `first_row` and a vector's place, not on the batch size; another batch size can
    still tip a near-tie between two tokens by rounding, and does so more often in int8.

    Args:
        vectors: (N, D); all are checked before the first one is inverted.
        batch_size: vectors in one forward pass.
        settings: arguments of `EmbInvGenerationConfig` that differ from the model's own.
        seed: of sampling.
        first_row: the number of `vectors[0]` in its source.
        feedback: "surrogate", or an encoder, N texts → (N, D); it checks candidates and corrections, see `generate`.

    Raises:
        ValueError: wrong width, NaN, infinity or zeros (the message names the row), or impossible settings.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    checked = torch.from_numpy(check_vectors(vectors, model.config.embedding_dim, first_row))
    generator = generator_for(seed, first_row)
    settings = {**(settings or {}), "feedback": feedback, "tokenizer": tokenizer}
    for start in range(0, len(checked), batch_size):
        batch = checked[start : start + batch_size]
        output = model.generate(batch, generator=generator, **settings)
        rows = zip(output.sequences.tolist(), output.confidence.tolist(), strict=True)
        for row, (ids, confidence) in enumerate(rows, first_row + start):
            yield _inversion(tokenizer, row, ids, confidence, model.config.eos_token_id)


def _inversion(tokenizer, row: int, ids: list[int], confidence: list[float], end_token_id: int) -> Inversion:
    length = ids.index(end_token_id) if end_token_id in ids else len(ids)
    ids, confidence = ids[:length], confidence[:length]
    return Inversion(
        row=row,
        text=tokenizer.decode(ids, skip_special_tokens=True),
        confidence=round(sum(confidence) / max(length, 1), 4),
        tokens=tokenizer.convert_ids_to_tokens(ids),
        token_confidence=[round(value, 4) for value in confidence],
    )


def process_state() -> PartialState:
    """The processes that `accelerate launch` or torchrun started; its `device` is this one's.

    Without `cpu`, accelerate takes each of several processes on CPUs for a run of its own.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def invert_file(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    source: str | Path,
    out: str | Path | None = None,
    column: str = "embedding",
    batch_size: int = 64,
    settings: dict | None = None,
    seed: int = 0,
    show_progress: bool = True,
    part_rows: int = PART_ROWS,
    feedback: Callable | str | None = None,
) -> dict:
    """Inverts all vectors of a file, in flat memory; killed and called again, it goes on where it was.

    Finished parts lie as JSON lines in the folder `out` + ".parts", readable at any time. When all are there, they
    become `out` in one step, which replaces an older file of that name, and the folder goes. A resumed run writes the
    same file as an uninterrupted one. A part belongs to the vectors it was made from: when a bad row of the source has
    been corrected, the parts of all other rows still count.

    Under `accelerate launch` the processes take parts in turn (`out` must be on a file system that all of them see)
    and the main one writes `out`; the number of processes changes no text, also not between a kill and its resume.
    The model runs on the device it is on: move each process's own to `process_state().device`.

    Args:
        source: `.npy`, `.parquet`, `.arrow` or `.jsonl` file, or a folder that `datasets` saved; see `iter_vectors`.
        out: a `.jsonl` or `.parquet` file of `Inversion` rows in the order of the source; None = the terminal.
        column: where a table holds the vectors.
        batch_size: vectors in one forward pass, at most `part_rows`; see `invert_vectors` for what it can change.
        settings: arguments of `EmbInvGenerationConfig` that differ from the model's own.
        seed: of sampling.
        show_progress: whether to show a bar with vectors/s.
        part_rows: rows of one part; sampling draws its noise by part.
        feedback: see `invert_vectors`.

    Returns:
        "vectors" in the source, "resumed" those that an earlier run had inverted, "seconds", "vectors_per_second".

    Raises:
        ValueError: an `out` of another kind, a source that cannot be read, a bad vector (the message names its row;
            the parts before it are kept), impossible settings, or parts of a run with other settings.
        OSError: a folder that cannot be written, or a full disk. A half-written `out` is never left.
    """
    started = time.perf_counter()
    job = _Job(model, tokenizer, Path(source), column, batch_size, settings or {}, seed, part_rows, feedback)
    if out is None:
        vectors, resumed = job.to_terminal(), 0
    else:
        vectors, resumed = job.to_file(Path(out), show_progress)
    seconds = time.perf_counter() - started
    return {
        "vectors": vectors,
        "resumed": resumed,
        "seconds": seconds,
        "vectors_per_second": (vectors - resumed) / seconds,
    }


@dataclass
class _Job:
    """One call of `invert_file`."""

    model: EmbInvForMaskedDiffusion
    tokenizer: PreTrainedTokenizerBase
    source: Path
    column: str
    batch_size: int
    settings: dict
    seed: int
    part_rows: int
    feedback: Callable | str | None

    def __post_init__(self):
        self.settings = self.model._generation_settings(None, self.settings).settings()
        self.warned = False

    def to_terminal(self) -> int:
        """Prints all texts; how many."""
        if process_state().num_processes > 1:
            raise ValueError("several processes cannot share a terminal; give an output file")
        rows = (row for first_row, vectors in self.parts() for row in self.invert(first_row, vectors))
        return print_inversions(rows, self.tokenizer, Console())

    def to_file(self, out: Path, show_progress: bool) -> tuple[int, int]:
        """Writes `out`; how many vectors the source holds, and how many were inverted before."""
        if out.resolve() == self.source.resolve():
            raise ValueError(f"{out}: the results would replace the vectors; choose another output")
        state, folder = process_state(), PartFolder(out)
        finished, total = folder.finished(), count_vectors(self.source)
        if state.is_main_process:
            folder.open(self.identity())
        state.wait_for_everyone()
        names, resumed = [], 0
        show_bar = show_progress and state.is_main_process
        # smoothing=0: the mean since the start, which neither resumed parts nor those of other processes make jump
        with tqdm(total=total, unit=" vectors", smoothing=0, disable=None if show_bar else True) as bar:
            for index, (first_row, vectors) in enumerate(self.parts()):
                names.append(_part_name(first_row, vectors))
                if names[-1] in finished:
                    resumed += len(vectors)
                    bar.initial = resumed
                elif index % state.num_processes == state.process_index:
                    folder.write(names[-1], _rows(self.invert(first_row, vectors), bar))
                bar.update(first_row + len(vectors) - bar.n)
        state.wait_for_everyone()
        if state.is_main_process:
            folder.merge(names, SCHEMA)
        return total, resumed

    def parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (`part_rows`, D) float32), the last part shorter; the reader's own batches have any size."""
        first_row, pending = 0, None
        for batch in iter_vectors(self.source, self.column, self.part_rows):
            pending = batch if pending is None else np.concatenate([pending, batch])
            while len(pending) >= self.part_rows:
                yield first_row, pending[: self.part_rows]
                first_row, pending = first_row + self.part_rows, pending[self.part_rows :]
        if len(pending):
            yield first_row, pending

    def invert(self, first_row: int, vectors: np.ndarray) -> Iterator[Inversion]:
        """The texts of a part. Warns of un-normalised vectors once a job."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vectors = check_vectors(vectors, self.model.config.embedding_dim, first_row)
        if caught and not self.warned:
            self.warned = True
            warnings.warn(caught[0].message, stacklevel=2)
        yield from invert_vectors(
            self.model, self.tokenizer, vectors, self.batch_size, self.settings, self.seed, first_row, self.feedback
        )

    def identity(self) -> dict:
        """What a run and its resume have in common. Not the batch size: memory may be why the run stopped."""
        return {
            "source": str(self.source.resolve()),
            "column": self.column,
            "weights": _weights_digest(self.model),
            "seed": self.seed,
            "part_rows": self.part_rows,
            "int8": isinstance(self.model.decoder, Int8Linear),
            "feedback": self.feedback if isinstance(self.feedback, str) else self.feedback is not None,
            **self.settings,
        }


def _part_name(first_row: int, vectors: np.ndarray) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(vectors), digest_size=8).hexdigest()
    return f"{first_row:012d}-{digest}.jsonl"


def _weights_digest(model: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _rows(inversions: Iterable[Inversion], bar: tqdm) -> Iterator[dict]:
    """The inversions as they are stored; the bar moves as they come."""
    for inversion in inversions:
        yield inversion._asdict()
        bar.update()
