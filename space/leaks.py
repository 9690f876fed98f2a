"""What leaks: which content words of some lines come back out of their stored vectors, by two attackers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from inverter import ADVICE, Inverter
from protection import Protection, background, recall
from streaming import Clock, streamed
from texts import Reading, read_text, vectors_of
from torch import Tensor
from words import ContentWord, by_kind, content_words

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.presets_embinv import PRESETS

MAX_LINES = 50
AT_ONCE = 4  # lines, after which the page shows more
# what judges the search of each attacker, and what the attacker has
ATTACKERS = {"surrogate": "from the vectors alone", "encoder": "with the public encoder"}


@dataclass
class Leaks:
    """The lines and what two attackers recover of them, as far as they have come.

    Attributes:
        lines: as they were embedded.
        recall: recall@10 of the store, in [0, 1]. num_background: sentences beside the lines.
        cosine: mean cosine of the stored vectors with the true ones.
        recovered: the texts so far by judge, one for each of the first lines.
        seconds: of the model, so far.
    """

    lines: list[Reading]
    recall: float
    num_background: int
    cosine: float
    recovered: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all attackers have tried all lines."""
        return self.steps[0] == self.steps[1]

    @property
    def steps(self) -> tuple[int, int]:
        """Lines recovered so far by all attackers, of how many."""
        return sum(map(len, self.recovered.values())), len(self.lines) * len(self.recovered)

    def words(self, judge: str) -> list[list[ContentWord]]:
        """The content words of each line that this attacker has tried."""
        pairs = zip(self.lines, self.recovered[judge], strict=False)
        return [content_words(line.text, text) for line, text in pairs]

    def counts(self, judge: str) -> tuple[int, int]:
        """Content words that this attacker has recovered, of those in the lines that were tried."""
        kinds = by_kind(self.words(judge)).values()
        return sum(found for found, _ in kinds), sum(total for _, total in kinds)

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        attackers = {
            ATTACKERS[judge]: {
                "words_recovered": self.counts(judge)[0],
                "content_words": self.counts(judge)[1],
                "by_kind": {kind: {"recovered": a, "of": b} for kind, (a, b) in by_kind(self.words(judge)).items()},
                "texts": texts,
            }
            for judge, texts in self.recovered.items()
        }
        lines = [line.text for line in self.lines]
        search = {"recall_at_10": self.recall, "background_sentences": self.num_background, "cosine": self.cosine}
        return {"lines": lines, **search, "attackers": attackers, "is_done": self.is_done, "seconds": self.seconds}


def leak(inverter: Inverter, text: str, protection: Protection, preset: str) -> Iterator[Leaks | None]:
    """Store the vectors of a text's lines with a protection, and let two attackers read them.

    Args:
        preset: how long each attacker searches. Without a search (quick) there is nothing to judge, and both recover
            the same.

    Yields:
        The same `Leaks` after every few lines, None each second without more. Once the generator is closed, the model
        stops at its next forward pass.

    Raises:
        EmbInvError: for no line, too many lines, or a line without a known word.
    """
    lines = read_lines(inverter, text)
    vectors = vectors_of(inverter, lines)
    stored = protection.stored(vectors)
    others = background(inverter)
    found = Leaks(lines, recall(vectors, others, protection), len(others), float((stored * vectors).sum(dim=1).mean()))
    found.recovered = {judge: [] for judge in ATTACKERS if judge in inverter.judges}
    yield found

    def work(put: Callable[[Any], None]) -> None:
        clock = Clock()
        for rows in range(0, len(lines), AT_ONCE):
            for judge in found.recovered:
                put((judge, _attacked(inverter, stored[rows : rows + AT_ONCE], judge, preset, protection), clock()))

    for _, item in streamed(inverter.watch, work, f"{ADVICE} or lines"):
        if item is not None:
            judge, texts, found.seconds = item
            found.recovered[judge] += texts
        yield None if item is None else found


def read_lines(inverter: Inverter, text: str) -> list[Reading]:
    """The lines of a text that are not empty.

    Raises:
        EmbInvError: see `leak`.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise EmbInvError("Paste a line of text first.")
    if len(lines) > MAX_LINES:
        raise EmbInvError(f"This has {len(lines)} lines; at most {MAX_LINES} are attacked at once here.")
    readings = []
    for number, line in enumerate(lines, start=1):
        try:
            readings.append(read_text(inverter, line))
        except EmbInvError as error:
            raise EmbInvError(f"Line {number}: {error}") from None
    return readings


def _attacked(inverter: Inverter, stored: Tensor, judge: str, preset: str, protection: Protection) -> list[str]:
    """The texts of some stored vectors. Who has the encoder cuts its vectors as the store does."""

    def cut(texts: list[str]) -> Tensor:
        return protection.cut(inverter.embed(texts))

    chosen = PRESETS[preset]
    feedback = None if chosen.feedback is None else cut if judge == "encoder" else "surrogate"
    return inverter.decode(inverter.generate(stored, feedback=feedback, **chosen.settings).sequences)
