"""A sentence's vector is inverted, draft by draft and round by round: what the tab "Recover" shows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inverter import Draft, Inverter, Result
from texts import Reading, read_text

from modeling_embinv.data.content_words import count_recovered
from modeling_embinv.presets_embinv import PRESETS


@dataclass
class Recovery:
    """The recovery of a text from its vector, as far as it has come.

    Attributes:
        original: the text, as it was embedded.
        drafts: the states so far. result: None until the end.
    """

    original: Reading
    drafts: list[Draft] = field(default_factory=list)
    result: Result | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        if self.result is not None:
            return self.result.text
        pieces = zip(self.drafts[-1].pieces, self.drafts[-1].joined, strict=True) if self.drafts else ()
        return "".join(("" if joined else " ") + piece for piece, joined in pieces if piece is not None).strip()

    @property
    def rounds(self) -> list[Draft]:
        """The states of the search: its candidates' best, and each round's."""
        return [draft for draft in self.drafts if draft.cosine is not None]

    @property
    def came_back(self) -> tuple[int, int]:
        """How many content words of the original stand in the recovered text, of how many."""
        return count_recovered(self.original.text, self.text)

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        found, total = self.came_back
        known: dict[str, Any] = {
            "original": self.original.text, "notes": list(self.original.notes), "text": self.text,
            "content_words": total, "words_recovered": found, "is_done": self.result is not None,
            "steps": [draft.as_json() for draft in self.drafts],
        }  # fmt: skip
        if self.result is None:
            return known
        said = {"verdict": self.result.verdict, "verdict_in_words": self.result.verdict_in_words}
        return self.result.as_json() | known | said


def recover(inverter: Inverter, text: str, preset: str, judge: str) -> Iterator[Recovery | None]:
    """Embed a text and recover it from its vector.

    Args:
        preset: of `generate`'s settings, see `PRESETS`.
        judge: of the search, "surrogate" or "encoder".

    Yields:
        The same `Recovery` after each step, None each second without one. Once the generator is closed, the model
        stops at its next forward pass.
    """
    recovery = Recovery(read_text(inverter, text))
    vector = inverter.embed([recovery.original.text])[0]
    for item in inverter.drafts(vector, feedback=judge, **PRESETS[preset].settings):
        if isinstance(item, Draft):
            recovery.drafts.append(item)
        elif isinstance(item, Result):
            item.accuracy = inverter.accuracy(recovery.original.ids, item.ids)
            recovery.result = item
        yield None if item is None else recovery
