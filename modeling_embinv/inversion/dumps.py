"""Inverts a file of vectors of any size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..progress.bar import RowBar
from ..stores.rows import VectorBatch
from ..stores.vectors import VectorSource
from ..vectors_embinv import unit_rows
from .jobs import FileJob, check_one_terminal
from .rows import Inversion, invert_vectors
from .terminal import print_inversions, standard_output

# Rows of one part: what a kill loses at most, what processes share, and the largest batch of a file.
PART_ROWS = 512
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "text": pa.string(),
        "confidence": pa.float32(),
        "cosine": pa.float32(),
        "verdict": pa.string(),
        "verdict_in_words": pa.string(),
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
    redact: bool = False,
) -> dict[str, Any]:
    """Inverts all vectors of a file, in flat memory; killed and called again, it resumes.

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
        out: a `.jsonl` or `.parquet` file of `Inversion` rows in the order of the source; "-" = the same as JSON lines
            on standard output; None = lines for the terminal.
        batch_size: vectors in one forward pass, at most `part_rows`; see `invert_vectors` for what it can change.
        settings: arguments of `EmbInvGenerationConfig` that differ from the model's own.
        seed: of sampling.
        show_progress: whether to show a bar with vectors/s.
        part_rows: rows of one part; sampling draws its noise by part.
        feedback: see `invert_vectors`.
        redact: whether content words are cut to their first letter, and numbers to none, see `content_words.masked`;
            the rows then have no tokens.

    Returns:
        "vectors" that were inverted, "resumed" those that an earlier run had inverted, "verdicts" how many texts have
        which one, "skipped" the rows without a usable vector (`Skipped`: `count`, `examples`), "column" and
        "id_column" that were read, "seconds", "vectors_per_second".

    Raises:
        EmbInvError: an `out` of another kind, a source that is damaged or has no vector of the model's width, a bad
            row (if the source is strict; the message names it, the parts before it are kept), impossible settings, or
            parts of a run with other settings.
        OSError: a folder that cannot be written, or a full disk. A half-written `out` is never left.
    """
    job = _Job(model, tokenizer, source, batch_size, part_rows, feedback, settings or {}, seed, redact)
    return {**job.run(out, show_progress), "column": source.column, "id_column": source.id_column}


@dataclass
class _Job(FileJob):
    """One call of `invert_file`."""

    settings: dict[str, Any]
    seed: int
    redact: bool = False

    schema = SCHEMA

    def __post_init__(self) -> None:
        # what can be is found before the first vector; given whole to `generate`, all would count as asked for
        self.whole = self.model.generation_settings(None, self.settings).settings()
        super().__post_init__()

    def to_terminal(self) -> int:
        """Prints all texts; how many."""
        check_one_terminal()
        with RowBar(self.source.count(), show=True, leave=False) as self.bar:
            rows = (row for first_row, part in self.parts() for row in self.invert(first_row, part))
            return print_inversions(
                self.noted(self.bar.cleared(rows), attrgetter("verdict")), self.tokenizer, standard_output()
            )

    def rows(self, first_row: int, part: VectorBatch) -> Iterator[dict[str, Any]]:
        """The texts of a part as they are stored."""
        return (inversion._asdict() for inversion in self.invert(first_row, part))

    def invert(self, first_row: int, part: VectorBatch) -> Iterator[Inversion]:
        """The texts of a part."""
        ids = part.ids or [None] * len(part.rows)
        vectors, _ = unit_rows(part.vectors)  # `parts` has warned of other lengths
        inversions = invert_vectors(
            self.model, self.tokenizer, vectors, self.batch_size, self.settings, self.seed, first_row, self.feedback,
            self.bar.show_round,
        )  # fmt: skip
        for inversion, row, name in zip(inversions, part.rows.tolist(), ids, strict=True):
            found = inversion._replace(row=row, id=name)
            yield found.redacted() if self.redact else found

    def identity(self) -> dict[str, Any]:
        """With the settings of the sampler."""
        return {**super().identity(), "seed": self.seed, "redact": self.redact, **self.whole}
