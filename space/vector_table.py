"""Many vectors are inverted, a few at a time: what the tab "Vectors" shows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from inverter import ADVICE, Inverter
from streaming import Clock, streamed
from torch.nn.functional import normalize
from vectors import Given

from modeling_embinv.presets_embinv import PRESETS
from modeling_embinv.verdicts_embinv import verdict_of

# rows that are read here by preset; `embinv invert` reads any number
MOST = {"quick": 500, "standard": 100, "thorough": 40}
AT_ONCE = {"quick": 16, "standard": 4, "thorough": 2}  # rows, after which the page shows more


@dataclass(frozen=True)
class Row:
    """A vector's text. The cosine is the encoder's."""

    row: int
    id: str | None
    text: str
    cosine: float
    verdict: str


@dataclass
class Table:
    """The texts of some vectors, as far as they have come.

    Attributes:
        mismatch: what the vectors look like, where they look like none of this encoder, by their numbers alone.
        seconds: of the model, so far.
    """

    given: Given
    mismatch: str | None
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all rows are inverted."""
        return len(self.rows) == len(self.given.rows)

    @property
    def warning(self) -> str | None:
        """One line where the vectors are not this encoder's, by their numbers or by the texts' own vectors."""
        if self.mismatch:
            return self.mismatch[0].upper() + self.mismatch[1:]
        if self.rows and verdict_of(middle := median(row.cosine for row in self.rows), "encoder") == "unrelated":
            return (
                f"These vectors are not this encoder’s, or their texts are none that this model can write: the texts "
                f"have a median cosine of {middle:.2f} with them."
            )
        return None

    @property
    def notes(self) -> list[str]:
        """One line for each thing that a visitor should know of the rows."""
        taken = self.given.taken
        notes = [f"Left out: {'; '.join(self.given.bad)}."] if self.given.bad else []
        if self.given.total > taken:
            notes.append(f"The first {taken} of {self.given.total:,} rows are read here; `embinv invert` reads all.")
        return notes

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        return {
            "source": self.given.source, "rows": [asdict(row) for row in self.rows], "left_out": self.given.bad,
            "rows_of_source": self.given.total, "warning": self.warning, "is_done": self.is_done,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def json_lines(self) -> str:
        """The rows as a file."""
        return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rows)


def invert(inverter: Inverter, given: Given, preset: str, judge: str) -> Iterator[Table | None]:
    """The texts of vectors.

    Yields:
        The same `Table` after every few rows, None each second without more. Once the generator is closed, the model
        stops at its next forward pass.
    """
    table = Table(given, inverter.model.mismatch(given.vectors))
    vectors = normalize(given.vectors.double(), dim=-1).float()
    yield table
    chosen = PRESETS[preset]
    feedback = None if chosen.feedback is None else judge

    def work(put: Callable[[Any], None]) -> None:
        clock = Clock()
        for part in torch.arange(len(vectors)).split(AT_ONCE[preset]):
            output = inverter.generate(vectors[part], feedback=feedback, **chosen.settings)
            texts = inverter.decode(output.sequences)
            cosines = (inverter.embed(texts) * vectors[part]).sum(dim=1).tolist()
            put((texts, cosines, clock()))

    for _, item in streamed(inverter.watch, work, f"{ADVICE} or rows"):
        if item is not None:
            texts, cosines, table.seconds = item
            for text, cosine in zip(texts, cosines, strict=True):
                index = len(table.rows)
                table.rows.append(
                    Row(given.rows[index], given.ids[index], text, cosine, verdict_of(cosine, "encoder"))
                )
        yield None if item is None else table
