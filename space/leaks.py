"""What leaks: two attackers read the stored vectors of some lines; the audit's code measures what came back."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from inverter import ADVICE, Inverter
from protection import Protection, public_vectors, recall
from streaming import Clock, streamed
from texts import Reading, read_text, vectors_of
from torch import Tensor

from modeling_embinv.audit.attack import ENCODER, VECTORS
from modeling_embinv.audit.figures import Figure
from modeling_embinv.audit.findings import measure, measure_kinds, other_texts
from modeling_embinv.audit.kinds import Entity, KindFinder
from modeling_embinv.audit.notes import finder_or_note
from modeling_embinv.audit.public import nearest_texts, public_sentences
from modeling_embinv.audit.tiers import OTHER_TEXT, PUBLIC_TEXT
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.presets_embinv import PRESETS

MAX_LINES = 50
AT_ONCE = 4  # lines, after which the page shows more
# the audit's attackers by what judges their search, and what each has
TIERS = {tier.feedback: tier for tier in (VECTORS, ENCODER)}
ATTACKERS = {"surrogate": "from the vectors alone", "encoder": "with the public encoder"}
# of the audit's figures, those that are shown; kinds come behind them
FIGURES = {"words": "content words", "exact": "whole lines"}


@dataclass
class Leaks:
    """The lines and what two attackers recover of them, as far as they have come.

    Attributes:
        lines: as they were embedded.
        entities: names, numbers and the like in each line; none where no finder is installed.
        public: for each line the public sentence whose vector is nearest: a guess that inverts nothing.
        recall: recall@10 of the store, in [0, 1]. num_public: sentences in it beside the lines.
        cosine: mean cosine of the stored vectors with the true ones.
        recovered: the texts so far by judge, one for each of the first lines.
        seconds: of the model, so far.
    """

    lines: list[Reading]
    entities: list[list[Entity]]
    public: list[str]
    recall: float
    num_public: int
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

    def figures(self, judge: str) -> dict[str, Figure]:
        """Of the lines that this attacker has tried, by the names of `FIGURES`, then by kind (came back whole)."""
        texts = self.recovered[judge]
        if not texts:
            return {}
        originals = [line.text for line in self.lines[: len(texts)]]
        floors = {PUBLIC_TEXT: self.public[: len(texts)]}
        if others := other_texts(texts, originals):
            floors[OTHER_TEXT] = others
        found = measure(originals, texts, floors)
        kinds = measure_kinds(self.entities[: len(texts)], texts, floors)
        shown = {label: found[name] for name, label in FIGURES.items() if name in found}
        return shown | {kind: figures.whole for kind, figures in kinds.items()}

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        attackers = {}
        for judge, texts in self.recovered.items():
            figures = {name: asdict(figure) for name, figure in self.figures(judge).items()}
            attackers[ATTACKERS[judge]] = {"holds": TIERS[judge].holds, "figures": figures, "texts": texts}
        lines = [line.text for line in self.lines]
        search = {"recall_at_10": self.recall, "public_sentences": self.num_public, "cosine": self.cosine}
        return {"lines": lines, **search, "attackers": attackers, "is_done": self.is_done, "seconds": self.seconds}


@functools.cache
def finder() -> KindFinder | None:
    """The audit's finder of names, numbers and the like; None where `embinv[audit]` is not installed."""
    return finder_or_note()[0]


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
    found, stored = store(inverter, read_lines(inverter, text), protection)
    yield found

    def work(put: Callable[[Any], None]) -> None:
        clock = Clock()
        for rows in range(0, len(found.lines), AT_ONCE):
            for judge in found.recovered:
                put((judge, _attacked(inverter, stored[rows : rows + AT_ONCE], judge, preset, protection), clock()))

    for _, item in streamed(inverter.watch, work, f"{ADVICE} or lines"):
        if item is not None:
            judge, texts, found.seconds = item
            found.recovered[judge] += texts
        yield None if item is None else found


def store(inverter: Inverter, lines: list[Reading], protection: Protection) -> tuple[Leaks, Tensor]:
    """What is known of the lines before any attack, and their vectors (N, D) as they are stored."""
    vectors, others = vectors_of(inverter, lines).numpy(), public_vectors(inverter)
    stored = protection.stored(vectors)
    entities = [[]] * len(lines) if (kinds := finder()) is None else kinds.find([line.text for line in lines])
    found = Leaks(
        lines, entities, nearest_texts(public_sentences(), others, stored), recall(vectors, others, protection),
        len(public_sentences()),
        float((stored * vectors).sum(axis=1).mean()), {judge: [] for judge in ATTACKERS if judge in inverter.judges},
    )  # fmt: skip
    return found, torch.from_numpy(stored)


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
        return torch.from_numpy(protection.cut(inverter.embed(texts).numpy()))

    chosen = PRESETS[preset]
    feedback = None if chosen.feedback is None else cut if judge == "encoder" else "surrogate"
    return inverter.decode(inverter.generate(stored, feedback=feedback, **chosen.settings).sequences)
