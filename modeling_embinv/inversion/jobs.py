"""A long run over a file of vectors, in parts that survive a kill and are shared by processes."""

import hashlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ..data.parts import locked
from ..data.vector_checks import sample_warnings
from ..errors_embinv import EmbInvError, warn
from ..int8_embinv import Int8Linear
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..progress.bar import RowBar
from ..runtime import process_state
from ..stores.rows import VectorBatch
from ..stores.vectors import VectorSource
from .judges import judge_identity, unchanged
from .parts import ResultParts
from .terminal import write_line

# in place of a file's name: standard output
STANDARD = "-"
Row = TypeVar("Row")


@dataclass
class FileJob(ABC):
    """One run over the vectors of a file. A subclass says what a part becomes.

    Attributes:
        model, tokenizer: the inverter's.
        source: the opened file.
        batch_size: vectors at a time. part_rows: rows of the file in a part.
        feedback: what judges texts: "surrogate", an encoder, or None.
        schema: of the rows, for parquet.
        verdicts: how many rows have which one; on the main process.
    """

    model: EmbInvForMaskedDiffusion
    tokenizer: PreTrainedTokenizerBase
    source: VectorSource
    batch_size: int
    part_rows: int
    feedback: Callable[..., Any] | str | None

    schema: ClassVar[pa.Schema]

    def __post_init__(self) -> None:
        config = self.model.config
        self.source.expect_width(config.embedding_dim, config.encoder_id)
        self.warned, self.verdicts = False, Counter[str]()
        self.bar = RowBar(0, show=False)

    @abstractmethod
    def rows(self, first_row: int, part: VectorBatch) -> Iterator[dict[str, Any]]:
        """What is written of a part, a row for each of its vectors."""

    @property
    def num_left_out(self) -> int:
        """Rows that were left out so far."""
        return self.source.skipped.count

    def parts(self) -> Iterator[tuple[int, VectorBatch]]:
        """(first row, the good vectors of `part_rows` rows), where there are any."""
        for index, part in enumerate(self.source.batches(self.part_rows)):
            if len(part.rows):
                self._check_sample(part.vectors)
                yield index * self.part_rows, part

    @abstractmethod
    def to_terminal(self) -> int:
        """Prints all rows; how many."""

    def run(self, out: str | Path | None, show_progress: bool) -> dict[str, Any]:
        """Writes `out`, or prints.

        Returns:
            vectors, resumed, verdicts, skipped, seconds and vectors_per_second, see `invert_file`.
        """
        started = time.perf_counter()
        if out is None:
            vectors, resumed = self.to_terminal(), 0
        elif str(out) == STANDARD:
            vectors, resumed = self.to_stdout(show_progress), 0
        else:
            vectors, resumed = self.to_file(Path(out), show_progress)
        seconds = time.perf_counter() - started
        return {
            "vectors": vectors,
            "resumed": resumed,
            "verdicts": self.verdicts,
            "skipped": self.source.skipped,
            "seconds": seconds,
            "vectors_per_second": (vectors - resumed) / seconds,
        }

    def noted(self, rows: Iterable[Row], verdict_of: Callable[[Row], str | None]) -> Iterator[Row]:
        """Rows as they are shown, whose verdicts are counted; one without a verdict does not count."""
        for row in rows:
            self.verdicts.update(filter(None, [verdict_of(row)]))
            yield row

    def to_stdout(self, show_progress: bool) -> int:
        """Prints JSON lines, in UTF-8, as `to_file` writes them; how many."""
        check_one_terminal()
        count = 0
        with RowBar(self.source.count(), show_progress and not sys.stdout.isatty()) as self.bar:
            for first_row, part in self.parts():
                for row in self.noted(self.bar.counted(self.rows(first_row, part)), itemgetter("verdict")):
                    write_line(json.dumps(row, ensure_ascii=False))
                    count += 1
                self.bar.reach(count + self.num_left_out)
        return count

    def to_file(self, out: Path, show_progress: bool) -> tuple[int, int]:
        """Writes `out`; how many rows it holds, and how many an earlier run had made."""
        if self.source.holds(out):
            raise EmbInvError(f"{out}: the texts would replace the vectors; give another output.")
        state, folder = process_state(), ResultParts(out, unchanged)
        if not state.is_main_process:
            return self._to_parts(folder, show=False)
        with locked(folder.parts.folder):
            done = self._to_parts(folder, show_progress)
            folder.clear()
        folder.remove()
        return done

    def _to_parts(self, folder: ResultParts, show: bool) -> tuple[int, int]:
        """This process' share of `to_file`; the main one joins the parts of all."""
        state, finished, total = process_state(), folder.finished(), self.source.count()
        if state.is_main_process:
            folder.open(self.identity())
        state.wait_for_everyone()
        sizes, count, resumed = dict[str, int](), 0, 0
        with RowBar(total, show) as self.bar:
            for index, (first_row, part) in enumerate(self.parts()):
                name = _part_name(first_row, part)
                sizes[name] = len(part.rows)
                if name in finished:
                    resumed += len(part.rows)
                    self.bar.resume(resumed)
                elif index % state.num_processes == state.process_index:
                    folder.write(name, self.bar.counted(self.rows(first_row, part)))
                count += len(part.rows)
                self.bar.reach(count + self.num_left_out)
        state.wait_for_everyone()
        if state.is_main_process:
            self.verdicts = folder.verdicts(sizes, self.schema)
            folder.merge(list(sizes), self.schema)
        return count, resumed

    def identity(self) -> dict[str, Any]:
        """What a run and its resume have in common. Not the batch size: memory may be why the run stopped."""
        return {
            "source": self.source.identity,
            "rows": str(self.source.selection),
            "column": self.source.column,
            "id_column": self.source.id_column,
            "fields": self.schema.names,
            "weights": _weights_digest(self.model),
            "part_rows": self.part_rows,
            "int8": isinstance(self.model.decoder, Int8Linear),
            "feedback": judge_identity(self.feedback, self.model.config.embedding_dim),
        }

    def _check_sample(self, vectors: NDArray[np.float32]) -> None:
        """Warns, once a job, of a part (n, D) that does not look like vectors of the model's encoder."""
        if not self.warned:
            for line in sample_warnings(vectors, self.model.config.encoder_id):
                self.warned = True
                warn(line)


def check_one_terminal() -> None:
    """Raises EmbInvError where several processes would print to one terminal."""
    if process_state().num_processes > 1:
        raise EmbInvError("several processes cannot share a terminal: give an output file.")


def _part_name(first_row: int, part: VectorBatch) -> str:
    """Names the part by what goes into it: its vectors, which rows they are, their ids, and their texts if any."""
    digest = hashlib.blake2b(part.vectors.tobytes(), digest_size=8)
    digest.update(part.rows.astype("<i8").tobytes() + json.dumps(part.ids).encode())
    if part.texts is not None:
        digest.update(json.dumps(part.texts).encode())
    return f"{first_row:012d}-{digest.hexdigest()}.jsonl"


def _weights_digest(model: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
