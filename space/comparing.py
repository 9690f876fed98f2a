"""What researchers try: all strategies on one sentence, and texts between two vectors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from inverter import ADVICE, Inverter
from streaming import Clock, streamed
from texts import read_text
from torch import Tensor

from modeling_embinv.errors_embinv import EmbInvError


@dataclass
class Compared:
    """What a strategy wrote; its cosine with the vector and its share of tokens in place, after each pass."""

    strategy: str
    text: str
    cosines: list[float]
    accuracies: list[float]
    seconds: float

    @property
    def passes(self) -> int:
        """Forward passes of the network."""
        return len(self.cosines)

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        return asdict(self) | {"passes": self.passes}


@dataclass
class Comparison:
    """All strategies on one sentence, as far as they have come."""

    notes: Sequence[str]
    strategies: Sequence[str]
    rows: list[Compared] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether all strategies have written."""
        return len(self.rows) == len(self.strategies)


@dataclass(frozen=True)
class Mixed:
    """The text at a share of the way between two vectors, and its cosine with each."""

    share: float
    text: str
    cosine_with_first: float
    cosine_with_second: float


def compare(
    inverter: Inverter, text: str, steps: int, seed: int, strategies: Sequence[str]
) -> Iterator[Comparison | None]:
    """All strategies on one sentence.

    Yields:
        The same `Comparison` after each strategy, None each second without one.
    """
    reading = read_text(inverter, text)
    vector = inverter.embed([reading.text])[0]
    found = Comparison(reading.notes, strategies)

    def work(put: Callable[[Compared], None]) -> None:
        for strategy in strategies:
            clock = Clock()
            output = inverter.generate(vector[None], seed, strategy=strategy, num_steps=steps, return_history=True)
            seconds = clock()
            texts = inverter.decode(torch.cat(output.history))
            cosines = (inverter.embed(texts) @ vector).tolist()
            accuracies = [inverter.accuracy(reading.ids, draft[0].tolist()) for draft in output.history]
            put(Compared(strategy, texts[-1], cosines, accuracies, seconds))

    for _, item in streamed(inverter.watch, work, ADVICE):
        if item is not None:
            found.rows.append(item)
        yield None if item is None else found


def mix(inverter: Inverter, first: str, second: str, points: int) -> Iterator[list[Mixed] | None]:
    """Texts on the way from one sentence's vector to another's, on the great circle between them.

    Yields:
        All of them at the end, None each second before.

    Raises:
        EmbInvError: for two sentences of one vector.
    """
    start, stop = inverter.embed([read_text(inverter, text).text for text in (first, second)])
    angle = torch.arccos((start @ stop).clamp(-1, 1))
    if angle < 1e-3:
        raise EmbInvError("These two sentences have the same vector; choose two that differ.")
    shares = torch.linspace(0, 1, points)[:, None]
    between = (torch.sin((1 - shares) * angle) * start + torch.sin(shares * angle) * stop) / torch.sin(angle)

    def work(put: Callable[[Any], None]) -> list[Mixed]:
        texts = inverter.decode(inverter.generate(between).sequences)
        return _mixed(texts, inverter.embed(texts), shares[:, 0], start, stop)

    for _, item in streamed(inverter.watch, work, "choose fewer points"):
        yield item


def _mixed(texts: list[str], vectors: Tensor, shares: Tensor, start: Tensor, stop: Tensor) -> list[Mixed]:
    columns = zip(shares.tolist(), texts, (vectors @ start).tolist(), (vectors @ stop).tolist(), strict=True)
    return [Mixed(*row) for row in columns]
