"""Inverts vectors: a few at a time, or a file of any size in parts that survive a kill and are shared by processes."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.console import Console
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..data.vector_checks import sample_warnings
from ..errors_embinv import EmbInvError
from ..int8_embinv import Int8Linear
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..runtime import process_state
from ..stores.vectors import VectorBatch, VectorSource
from ..vectors_embinv import unit_rows
from .parts import ResultParts
from .rows import Inversion, invert_vectors
from .terminal import print_inversions

# Rows of one part: what a kill loses at most, what processes share, and the largest batch of a file.
PART_ROWS = 512
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "text": pa.string(),
        "confidence": pa.float32(),
        "cosine": pa.float32(),
        "tokens": pa.list_(pa.string()),
        "token_confidence": pa.list_(pa.float32()),
    }
)


def invert_file(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    source: VectorSource,
    out: str | Path | None = None,
    batch_size: int = 64,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    show_progress: bool = True,
    part_rows: int = PART_ROWS,
    feedback: Callable[..., Any] | str | None = None,
) -> dict[str, Any]:
    """Inverts all vectors of a file, in flat memory; killed and called again, it goes on where it was.

        source = open_vectors("vectors.parquet", dim=model.config.embedding_dim)
        invert_file(model, tokenizer, source, "texts.jsonl")

    Finished parts lie as JSON lines in the folder `out` + ".parts", readable at any time. When all are there, they
    become `out` in one step, which replaces an older file of that name, and the folder goes. A resumed run writes the
    same file as an uninterrupted one. A part belongs to the vectors it was made from: when a bad row of the source has
    been corrected, the parts of all other rows still count.

    Under `accelerate launch` the processes take parts in turn (`out` must be on a file system that all of them see)
    and the main one writes `out`; the number of processes changes no text, also not between a kill and its resume.
    The model runs on the device it is on: move each process's own to `process_state().device`.

    Args:
        source: the opened file of vectors, see `open_vectors`, which finds the columns and says what a bad row is.
        out: a `.jsonl` or `.parquet` file of `Inversion` rows in the order of the source; None = the terminal.
        batch_size: vectors in one forward pass, at most `part_rows`; see `invert_vectors` for what it can change.
        settings: arguments of `EmbInvGenerationConfig` that differ from the model's own.
        seed: of sampling.
        show_progress: whether to show a bar with vectors/s.
        part_rows: rows of one part; sampling draws its noise by part.
        feedback: see `invert_vectors`.

    Returns:
        "vectors" that were inverted, "resumed" those that an earlier run had inverted, "skipped" the rows
        without a usable vector (`Skipped`: `count`, `examples`), "column" and "id_column" that were read, "seconds",
        "vectors_per_second".

    Raises:
        EmbInvError: an `out` of another kind, a source that is damaged or has no vector of the model's width, a bad
            row (if the source is strict; the message names it, the parts before it are kept), impossible settings, or
            parts of a run with other settings.
        OSError: a folder that cannot be written, or a full disk. A half-written `out` is never left.
    """
    started = time.perf_counter()
    job = _Job(model, tokenizer, source, batch_size, settings or {}, seed, part_rows, feedback)
    if out is None:
        vectors, resumed = job.to_terminal(), 0
    else:
        vectors, resumed = job.to_file(Path(out), show_progress)
    seconds = time.perf_counter() - started
    return {
        "vectors": vectors,
        "resumed": resumed,
        "skipped": source.skipped,
        "column": source.column,
        "id_column": source.id_column,
        "seconds": seconds,
        "vectors_per_second": (vectors - resumed) / seconds,
    }


@dataclass
class _Job:
    """One call of `invert_file`."""

    model: EmbInvForMaskedDiffusion
    tokenizer: PreTrainedTokenizerBase
    source: VectorSource
    batch_size: int
    settings: dict[str, Any]
    seed: int
    part_rows: int
    feedback: Callable[..., Any] | str | None

    def __post_init__(self) -> None:
        self.settings = self.model._generation_settings(None, self.settings).settings()
        config = self.model.config
        self.source.expect_width(config.embedding_dim, config.encoder_id)
        self.warned = False

    def to_terminal(self) -> int:
        """Prints all texts; how many."""
        if process_state().num_processes > 1:
            raise EmbInvError("several processes cannot share a terminal; give an output file")
        rows = (row for first_row, part in self.parts() for row in self.invert(first_row, part))
        return print_inversions(rows, self.tokenizer, Console())

    def to_file(self, out: Path, show_progress: bool) -> tuple[int, int]:
        """Writes `out`; how many vectors it holds, and how many were inverted before."""
        if out.resolve() == self.source.path.resolve():
            raise EmbInvError(f"{out}: the results would replace the vectors; choose another output")
        state, folder = process_state(), ResultParts(out)
        finished, total = folder.finished(), self.source.count()
        if state.is_main_process:
            folder.open(self.identity())
        state.wait_for_everyone()
        names, vectors, resumed = [], 0, 0
        show_bar = show_progress and state.is_main_process
        # smoothing=0: the mean since the start, which neither resumed parts nor those of other processes make jump
        with tqdm(total=total, unit=" vectors", smoothing=0, disable=None if show_bar else True) as bar:
            for index, (first_row, part) in enumerate(self.parts()):
                names.append(_part_name(first_row, part))
                if names[-1] in finished:
                    resumed += len(part.rows)
                    bar.initial = resumed
                elif index % state.num_processes == state.process_index:
                    folder.write(names[-1], _rows(self.invert(first_row, part), bar))
                vectors += len(part.rows)
                bar.update(vectors + self.source.skipped.count - bar.n)
        state.wait_for_everyone()
        if state.is_main_process:
            folder.merge(names, SCHEMA)
        return vectors, resumed

    def parts(self) -> Iterator[tuple[int, VectorBatch]]:
        """(first row, the good vectors of `part_rows` rows), where there are any."""
        for index, part in enumerate(self.source.batches(self.part_rows)):
            if len(part.rows):
                self.check_sample(part.vectors)
                yield index * self.part_rows, part

    def check_sample(self, vectors: NDArray[np.float32]) -> None:
        """Warns, once a job, of a part (n, D) that does not look like vectors of the model's encoder."""
        if not self.warned:
            for line in sample_warnings(vectors, self.model.config.encoder_id):
                self.warned = True
                warnings.warn(line, stacklevel=2)

    def invert(self, first_row: int, part: VectorBatch) -> Iterator[Inversion]:
        """The texts of a part."""
        ids = part.ids or [None] * len(part.rows)
        vectors, _ = unit_rows(part.vectors)  # `check_sample` has warned
        inversions = invert_vectors(
            self.model, self.tokenizer, vectors, self.batch_size, self.settings, self.seed, first_row, self.feedback
        )
        for inversion, row, name in zip(inversions, part.rows.tolist(), ids, strict=True):
            yield inversion._replace(row=row, id=name)

    def identity(self) -> dict[str, Any]:
        """What a run and its resume have in common. Not the batch size: memory may be why the run stopped."""
        return {
            "source": str(self.source.path.resolve()),
            "column": self.source.column,
            "id_column": self.source.id_column,
            "fields": list(Inversion._fields),
            "weights": _weights_digest(self.model),
            "seed": self.seed,
            "part_rows": self.part_rows,
            "int8": isinstance(self.model.decoder, Int8Linear),
            "feedback": self.feedback if isinstance(self.feedback, str) else self.feedback is not None,
            **self.settings,
        }


def _part_name(first_row: int, part: VectorBatch) -> str:
    """Names the part by what goes into it: its vectors, which rows they are, and their ids."""
    digest = hashlib.blake2b(part.vectors.tobytes(), digest_size=8)
    digest.update(part.rows.astype("<i8").tobytes() + json.dumps(part.ids).encode())
    return f"{first_row:012d}-{digest.hexdigest()}.jsonl"


def _weights_digest(model: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _rows(inversions: Iterable[Inversion], bar: "tqdm[NoReturn]") -> Iterator[dict[str, Any]]:
    """The inversions as they are stored; the bar moves as they come."""
    for inversion in inversions:
        yield inversion._asdict()
        bar.update()
