"""Redacted texts beside the vectors of the whole ones: the gaps, filled."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.files import json_rows
from ..errors_embinv import EmbInvError
from ..filled_embinv import VERDICTS
from ..filling_embinv import check_judged
from ..gap_marks_embinv import MARKS, GapReader
from ..inversion.fillings import Redaction, fill_file
from ..inversion.progress import stage
from ..stores.vectors import open_vectors
from .attack import Attacker
from .figures import Figure, share
from .sample import Sample, subset

_MARK = re.compile("|".join(MARKS.values()))
# rows that are filled, at most: a gap takes seconds on a CPU
LIMIT = 50


@dataclass(frozen=True)
class Filled:
    """Redacted texts that were filled.

    Attributes:
        rows: how many. gaps: in all of them.
        expected: mean probability of a gap's words: the share that is expected to be right, an estimate.
        verdicts: how often each verdict on a whole text was given, in words.
        left_out: rows whose texts cannot be filled.
        texts: the filled texts, which are recovered text.
        template: whether all rows had one text.
    """

    rows: int
    gaps: int
    expected: Figure | None
    verdicts: dict[str, int]
    left_out: int
    texts: list[str]
    template: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, without the texts."""
        values = asdict(self)
        del values["texts"]
        return values


def has_marks(text: str) -> bool:
    """Whether a text holds a mark that hides words, see `MARKS`."""
    return _MARK.search(text) is not None


def without_marks(text: str) -> str:
    """The words of a text that stand there: a mark is none of the original's."""
    return _MARK.sub(" ", text)


def fill_sample(attacker: Attacker, sample: Sample, template: str | None = None) -> Filled | None:
    """Fills the gaps of the rows whose texts hold marks, or of a template; None where there is nothing to fill.

    Args:
        attacker: its checkpoint needs a surrogate.
        sample: with texts, unless there is a template.
        template: the text of every row.

    Raises:
        EmbInvError: a template that cannot be filled; and as `fill_file`, but for texts none of which can be filled.
    """
    marked = [index for index, text in enumerate(sample.texts or []) if has_marks(text)]
    chosen = np.arange(len(sample.rows)) if template is not None else np.array(marked, dtype=int)
    if not len(chosen):
        return None
    part = sample.take(chosen[subset(len(chosen), LIMIT, attacker.seed)])
    if template is None and not any(_can_be_filled(attacker, text) for text in part.texts or []):
        return None  # each for a reason of its own
    vectors, out = attacker.work / "context.parquet", attacker.work / "context.jsonl"
    if not out.exists():
        part.save(vectors)
        dim = attacker.model.config.embedding_dim
        source = open_vectors(vectors, "vector", text_column=False if template is not None else "text", dim=dim)
        with stage(f"filling {len(part.rows):,} redacted texts", attacker.show_progress):
            fill_file(
                attacker.model, attacker.tokenizer, source, out, Redaction(template=template),
                show_progress=attacker.show_progress,
            )  # fmt: skip
    rows = [row for _, row in json_rows(out)]
    return Filled(
        len(rows),
        sum(len(row["gaps"]) for row in rows),
        share(
            [sum(gap["probability"] for gap in row["gaps"]) for row in rows], [len(row["gaps"]) for row in rows],
            seed=attacker.seed,
        ),
        dict(Counter(VERDICTS[row["verdict"]] for row in rows)),
        len(part.rows) - len(rows),
        [row["text"] for row in rows],
        template is not None,
    )  # fmt: skip


def _can_be_filled(attacker: Attacker, text: str) -> bool:
    """Whether a text has gaps that the checkpoint's surrogate can judge."""
    config = attacker.model.config
    try:
        check_judged(GapReader(attacker.tokenizer, config.mask_token_id).read(text, 0), 0, config)
    except EmbInvError:
        return False
    return True
