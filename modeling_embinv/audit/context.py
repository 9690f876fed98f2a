"""Redacted texts beside the vectors of the whole ones: the gaps, filled."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.files import json_rows
from ..errors_embinv import EmbInvError
from ..filled_embinv import VERDICTS
from ..gap_kinds_embinv import KIND_OF_TAG
from ..gap_marks_embinv import MARKS, GapReader, tag_of, unnumbered
from ..gap_reach_embinv import judged_text
from ..inversion.fillings import Redaction, fill_file
from ..progress.bar import stage
from ..progress.rates import counted
from ..stores.vectors import open_vectors
from ..vectors_embinv import unit_rows
from .attack import Attacker
from .figures import Figure, share
from .sample import Sample, subset
from .severity import SAME_TEXT

_MARK = re.compile("|".join(MARKS.values()))
# words in marks that hide something; [INFO] and <BR> may as well be text. Bars, stars and lines have none
_HIDING = {"", "REDACTED", "MASK", *KIND_OF_TAG}
# rows that are filled, at most: a gap takes seconds on a CPU
LIMIT = 50


@dataclass(frozen=True)
class Filled:
    """Redacted texts that were filled.

    Attributes:
        rows: how many. gaps: in those whose marks hide something that the vector tells.
        expected: mean probability of a gap's words: the share that is expected to be right, an estimate; None without
            such a gap.
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
    """The words of a text that stand there: a mark that is known to hide something is none of the original's."""
    return _MARK.sub(lambda mark: " " if _hides(mark.group()) else mark.group(), text)


def _hides(mark: str) -> bool:
    """Whether a mark is one of redaction, also where its tag is numbered, as in <PERSON_1>."""
    return unnumbered(tag_of(mark)) in _HIDING


def scored_texts(attacker: Attacker, sample: Sample) -> list[str] | None:
    """The texts of a sample as recovered ones are compared with them; None where it has none.

    Marks are cut, see `without_marks`, unless the encoder gives a text the row's very vector with its marks.
    """
    if sample.texts is None:
        return None
    literal = _literal_rows(attacker, sample, sample.texts)
    return [text if row in literal else without_marks(text) for row, text in enumerate(sample.texts)]


def _literal_rows(attacker: Attacker, sample: Sample, texts: Sequence[str]) -> set[int]:
    """The rows whose vectors were made of their texts as they are written, marks and all."""
    marked = [row for row, text in enumerate(texts) if has_marks(text)]
    if attacker.encode is None or not marked:
        return set()
    ours = attacker.embedded([texts[row] for row in marked])
    cosines = (ours * unit_rows(sample.vectors[marked])[0]).sum(axis=1)
    return {row for row, cosine in zip(marked, cosines, strict=True) if cosine >= SAME_TEXT}


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
        with stage(f"filling {counted(len(part.rows), 'redacted text')}", attacker.show_progress):
            fill_file(
                attacker.model, attacker.tokenizer, source, out, Redaction(template=template),
                show_progress=attacker.show_progress,
            )  # fmt: skip
    rows = [row for _, row in json_rows(out)]
    hidden = probabilities(rows)
    counts = [len(gaps) for gaps in hidden]
    return Filled(
        len(rows),
        sum(counts),
        share([sum(gaps) for gaps in hidden], counts, seed=attacker.seed),
        dict(Counter(VERDICTS[row["verdict"]] for row in rows)),
        len(part.rows) - len(rows),
        [row["text"] for row in rows],
        template is not None,
    )  # fmt: skip


def probabilities(rows: Iterable[dict[str, Any]]) -> list[list[float]]:
    """Of filled texts that have any: the probabilities of the gaps that hide something, and that the encoder reads.

    Where the vector says nothing of a gap, or says that its mark is part of the text, the mark stays.
    """
    texts = ([gap for gap in row["gaps"] if gap["text"] != gap["mark"]] for row in rows if row["verdict"] != "literal")
    return [[gap["probability"] for gap in gaps] for gaps in texts if gaps]


def check_template(attacker: Attacker, template: str) -> None:
    """Raises an EmbInvError for a template that cannot be filled."""
    try:
        _check_filled(attacker, template)
    except EmbInvError as error:
        raise EmbInvError(f"the template cannot be filled: {error}") from error


def _can_be_filled(attacker: Attacker, text: str) -> bool:
    try:
        _check_filled(attacker, text)
    except EmbInvError:
        return False
    return True


def _check_filled(attacker: Attacker, text: str) -> None:
    """Raises an EmbInvError for a text without gaps that the checkpoint's surrogate can judge."""
    config = attacker.model.config
    judged_text(GapReader(attacker.tokenizer, config.mask_token_id).read(text, 0), 0, config)
