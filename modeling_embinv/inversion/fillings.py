"""Fills the gaps of redacted texts, from a file of them with their vectors, or of one template with many vectors."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..errors_embinv import EmbInvError
from ..gap_marks_embinv import MARKS, GapReader
from ..gap_reach_embinv import judged_text
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..settings_embinv import FillSettings
from ..stores.rows import Skipped, VectorBatch
from ..stores.vectors import VectorSource
from ..vectors_embinv import unit_rows
from .jobs import FileJob, check_one_terminal
from .terminal import print_fillings, standard_output

# Rows of one part: what a kill loses at most, and what processes share. A gap takes seconds on a CPU.
PART_ROWS = 16
_WORDS = {"text": pa.string(), "cosine": pa.float32(), "probability": pa.float32()}
_GAP = {
    "text": pa.string(),
    "start": pa.int64(),
    "end": pa.int64(),
    "mark": pa.string(),
    "kind": pa.string(),
    "probability": pa.float32(),
    "alternatives": pa.list_(pa.struct(_WORDS)),
}
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "text": pa.string(),
        "cosine": pa.float32(),
        "verdict": pa.string(),
        "verdict_in_words": pa.string(),
        "gaps": pa.list_(pa.struct(_GAP)),
    }
)


@dataclass(frozen=True)
class Redaction:
    """What is known of the hidden words: arguments of `model.fill`.

    Attributes:
        marks: names of `MARKS`, or marks as they stand in the texts.
        choices: the only words that a mark may hide, by the word in the mark.
        num_tokens: tokens of every gap; None = unknown.
        settings: of the search, see `FillSettings`.
        template: the text of every vector; None = each has its own.
    """

    marks: Sequence[str] = tuple(MARKS)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    num_tokens: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The keywords of `model.fill`."""
        return {"marks": self.marks, "choices": self.choices, "num_tokens": self.num_tokens, **self.settings}

    def identity(self) -> dict[str, Any]:
        """As JSON has it; long lists by their digest."""
        choices = json.dumps(self.choices, sort_keys=True).encode()
        return {
            "template": self.template,
            "marks": list(self.marks),
            "choices": hashlib.blake2b(choices, digest_size=8).hexdigest(),
            "num_tokens": self.num_tokens,
            **vars(FillSettings.of(**self.settings)),
        }


def fill_file(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    source: VectorSource,
    out: str | Path | None = None,
    redaction: Redaction | None = None,
    batch_size: int = PART_ROWS,
    part_rows: int = PART_ROWS,
    show_progress: bool = True,
    feedback: Callable[..., Any] | str = "surrogate",
    longest: int | None = None,
) -> dict[str, Any]:
    """Fills the gaps of all texts of a file; killed and called again, it resumes, as `invert_file` does.

        source = open_vectors("redacted.jsonl", text_column="redacted", dim=model.config.embedding_dim)
        fill_file(model, tokenizer, source, "filled.jsonl")

    Args:
        source: the opened file of redacted texts and the vectors of the whole texts; of vectors alone with a template.
            If it is strict, a row that cannot be filled is an error; else it is left out.
        out: a `.jsonl` or `.parquet` file of rows as `SCHEMA` has them; None = the terminal.
        redaction: the marks, and what is known of the words; None = all marks, any words.
        batch_size: texts that are searched side by side, at most `part_rows`.
        part_rows: rows of one part.
        show_progress: whether to show a bar.
        feedback: what judges whole texts: "surrogate", or the encoder, N texts → (N, D).
        longest: tokens of a text that the encoder reads where it judges, see `fill`; None = unknown.

    Returns:
        As `invert_file`; and "unfillable", the rows of good vectors whose texts cannot be filled (`Skipped`), and
        "tags", the words in all marks.

    Raises:
        EmbInvError: as `invert_file`, and where no text can be filled.
        OSError: a folder that cannot be written, or a full disk.
    """
    redaction = redaction or Redaction()
    if source.text_column is None and redaction.template is None:
        raise EmbInvError(f"{source.path}: opened without texts: give open_vectors a text_column, or a template here.")
    job = _FillJob(model, tokenizer, source, batch_size, part_rows, feedback, redaction, longest)
    return {**job.run(out, show_progress), "unfillable": job.unfillable, "tags": job.tags}


@dataclass
class _FillJob(FileJob):
    """One call of `fill_file`."""

    feedback: Callable[..., Any] | str
    redaction: Redaction
    longest: int | None

    schema = SCHEMA

    def __post_init__(self) -> None:
        most = FillSettings.of(**self.redaction.settings).max_gap_tokens
        known = self.redaction.marks, self.redaction.choices, most, self.redaction.num_tokens
        self.gap_reader = GapReader(self.tokenizer, self.model.config.mask_token_id, *known)
        self.unfillable, self.tags = Skipped(), set[str]()
        super().__post_init__()
        if self.redaction.template is not None:
            try:
                self._check(self.redaction.template, 0)
            except EmbInvError as error:
                raise EmbInvError(f"the template cannot be filled: {error}") from error

    @property
    def num_left_out(self) -> int:
        """Rows without a usable vector, and rows whose text cannot be filled."""
        return super().num_left_out + self.unfillable.count

    def to_terminal(self) -> int:
        """Prints all texts; how many."""
        check_one_terminal()
        rows = (row for first_row, part in self.parts() for row in self.rows(first_row, part))
        return print_fillings(self.noted(rows, itemgetter("verdict")), standard_output())

    def parts(self) -> Iterator[tuple[int, VectorBatch]]:
        """The rows that can be filled, where there are any."""
        self.unfillable, has_any = Skipped(), False
        for first_row, part in super().parts():
            good = self._fillable(part)
            if len(good.rows):
                has_any = True
                yield first_row, good
        if not has_any:
            raise EmbInvError(f"{self.source.path}: no text can be filled: {self.unfillable.examples[0][1]}")

    def _fillable(self, part: VectorBatch) -> VectorBatch:
        """The rows whose texts can be filled; the template stands for texts."""
        if self.redaction.template is not None:
            return part._replace(texts=[self.redaction.template] * len(part.rows))
        good, texts = [], part.texts or []
        for index, (text, row) in enumerate(zip(texts, part.rows.tolist(), strict=True)):
            try:
                self._check(text, row)
                good.append(index)
            except EmbInvError as error:
                if self.source.is_strict:
                    raise EmbInvError(f"{self.source.path}: {error}") from error
                self.unfillable.add(row, str(error))
        ids = None if part.ids is None else [part.ids[index] for index in good]
        return VectorBatch(part.vectors[good], part.rows[good], ids, [texts[index] for index in good])

    def _check(self, text: str, row: int) -> None:
        """Raises EmbInvError for a text without gaps, one of gaps alone, and one that the judge cannot read."""
        redacted = self.gap_reader.read(text, row)
        judged_text(redacted, row, self.model.config, self.feedback, self.longest)
        self.tags |= {gap.tag for gap in redacted.gaps}

    def rows(self, first_row: int, part: VectorBatch) -> Iterator[dict[str, Any]]:
        """The filled texts of a part."""
        vectors, _ = unit_rows(part.vectors)  # `parts` has warned of other lengths
        ids, rows, texts = part.ids or [None] * len(part.rows), part.rows.tolist(), part.texts or []
        for start in range(0, len(rows), self.batch_size):
            batch = slice(start, start + self.batch_size)
            # a list that marks of other parts ask for is no mistake
            choices = self.gap_reader.choices_for(texts[batch])
            known = self.redaction.arguments | {"choices": choices, "longest": self.longest}
            output = self.model.fill(vectors[batch], texts[batch], self.tokenizer, self.feedback, **known)
            for row, name, filled in zip(rows[batch], ids[batch], output.texts, strict=True):
                found = {"row": row, "id": name, **filled.as_dict()}
                yield {field: found[field] for field in self.schema.names}

    def identity(self) -> dict[str, Any]:
        """With the redaction, and the model's own settings that `fill` goes by."""
        own: Any = self.model.generation_config
        return {
            **super().identity(),
            "text_column": self.source.text_column,
            "longest": self.longest,
            **self.redaction.identity(),
            "suppress_tokens": own.suppress_tokens,
            "stop_cosine": own.search.stop_cosine,
            "calibration": own.calibration,
        }
