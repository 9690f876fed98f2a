"""The ladder of the demo: one text from its vector, with more effort on each rung, live on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor

from ..causal_embinv import PLAINLY
from ..data.content_words import count_recovered
from ..evaluation import metrics
from ..hypotheses_embinv import SearchRound
from ..inversion.terminal import printable, tinted
from ..settings_embinv import SearchSettings
from ..texts_embinv import WrittenText, decode_rows, written_texts
from ..verdicts_embinv import TEXT_VERDICTS, verdict_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..data.encoders import Encoder
    from ..modeling_embinv import EmbInvForMaskedDiffusion

_LABEL, _SCORE = 11, 7
# narrower than this, a text is not indented beside its label
_NARROW = 50


@dataclass
class Rung:
    """One level of effort: arguments of `generate`, and a source of noise of its own, so that no rung moves another.

    Attributes:
        feedback: what judges a search, or None.
    """

    name: str
    settings: dict[str, Any]
    feedback: Callable[..., Any] | str | None = None
    seed: int = 0
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)


def rungs(
    model: "EmbInvForMaskedDiffusion", settings: dict[str, Any], judge: str | None, feedback: Any, seed: int
) -> list[Rung]:
    """From one pass to what `settings` ask for: draft, refined, and searches by the surrogate and by the encoder.

    Of a checkpoint that writes from left to right, the first is greedy and the second is called "beams".

    Args:
        judge: the name of what `feedback` is.
    """
    single = {name: value for name, value in settings.items() if name not in SearchSettings.table()}
    length = {name: single[name] for name in ("max_length",) if name in single}
    asked = model.generation_settings(None, dict(settings))
    is_causal = asked.strategy == "autoregressive"
    first = PLAINLY if is_causal else {"strategy": "confidence", "num_steps": 1}
    found = [Rung("draft", {**first, **_NO_SEARCH, **length})]
    if not is_causal or asked.num_draft_beams > 1:
        found.append(Rung("beams" if is_causal else "refined", {**single, **_NO_SEARCH}, seed=seed))
    if not asked.search.is_search:
        return found
    if judge == "encoder" and model.surrogate is not None:
        found.append(Rung("surrogate", settings, "surrogate", seed))
    return [*found, Rung(judge or "candidates", settings, feedback, seed)]


_NO_SEARCH = {"num_candidates": 1, "num_corrections": 0}


@dataclass
class Costs:
    """What all rungs took together."""

    passes: int = 0
    encoder_calls: int = 0
    surrogate_calls: int = 0

    def add(self, output: Any) -> None:
        """Count what an output of `generate` or `fill` took."""
        self.passes += output.num_forward_passes
        self.encoder_calls += output.num_feedback_calls or 0
        self.surrogate_calls += output.num_surrogate_calls or 0

    def __str__(self) -> str:
        counts = [(self.passes, "forward pass", "es"), (self.encoder_calls, "encoder call", "s")]
        counts.append((self.surrogate_calls, "surrogate call", "s"))
        return ", ".join(f"{count:,} {noun}{ending * (count != 1)}" for count, noun, ending in counts if count)


class Ladder:
    """Climbs the rungs for one sentence after another, and prints what comes back.

    Args:
        encoder: it measures every text's cosine with the vector; only a rung whose feedback it is searches with it.
    """

    def __init__(
        self,
        model: "EmbInvForMaskedDiffusion",
        tokenizer: "PreTrainedTokenizerBase",
        encoder: "Encoder",
        steps: list[Rung],
        console: Console,
    ) -> None:
        self.model, self.tokenizer, self.encoder = model, tokenizer, encoder
        self.rungs, self.console, self.costs = steps, console, Costs()

    def climb(self, original: str, vector: Tensor, note: str = "") -> None:
        """Print a sentence, the text of each rung for its vector (1, D), and the verdict on the last one.

        Args:
            note: one line on the sentence, or "".
        """
        self.show("original", original)
        if note:
            self.show("", note)
        for number, rung in enumerate(self.rungs, start=1):
            with self.watched(rung.name) as show:  # which stays until the line that takes its place is ready
                on_round = show and partial(self._show_round, show)
                text, cosine = self._inverted(rung, vector, on_round)
            is_last = number == len(self.rungs)
            self.show(rung.name, self._tinted(text) if is_last else text.text, cosine)
        self.show("", _headline(original, text.text, cosine))
        self.console.print()

    def _inverted(
        self, rung: Rung, vector: Tensor, on_round: Callable[[SearchRound], None] | None
    ) -> tuple[WrittenText, float]:
        """The text of a rung, and its cosine by the encoder."""
        output = self.model.generate(
            vector, generator=rung.generator, feedback=rung.feedback, tokenizer=self.tokenizer, on_round=on_round,
            **rung.settings,
        )  # fmt: skip
        self.costs.add(output)
        end = self.model.config.eos_token_id
        (text,) = written_texts(self.tokenizer, output.sequences.cpu(), output.confidence, end)
        return text, metrics.cosine(self.encoder.encode([text.text]), vector).item()

    @contextmanager
    def watched(self, label: str) -> Iterator[Callable[[str | Text, float | None, str], None] | None]:
        """What shows a text, its cosine and a status while a search runs, on a terminal that can erase them again."""
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            yield None
            return
        with Live(console=self.console, transient=True, auto_refresh=False) as live:

            def show(text: str | Text, cosine: float | None, status: str) -> None:
                lines = [*self._lines(label, _as_text(text), cosine), *self._lines("", Text(status, style="dim"))]
                live.update(Text("\n").join(lines), refresh=True)

            yield show

    def _show_round(self, show: Callable[[str, float, str], None], one: SearchRound) -> None:
        """Show the best text of a round, see `watched`."""
        (text,) = decode_rows(self.tokenizer, one.sequences, self.model.config.eos_token_id)
        show(text, one.cosine[0].item(), f"round {one.number} of {one.total}")

    def _tinted(self, text: WrittenText) -> Text:
        return tinted(self.tokenizer, text.ids, text.token_confidence)

    def show(self, label: str, text: str | Text, cosine: float | None = None) -> None:
        """Print a label, a cosine and a text."""
        for line in self._lines(label, _as_text(text), cosine):
            self.console.print(line, soft_wrap=True, highlight=False)

    def _lines(self, label: str, text: Text, cosine: float | None = None) -> list[Text]:
        """A label, a cosine and a text, which a terminal's width wraps beside them; one line for a pipe."""
        score = "" if cosine is None else f"{cosine:.3f}"
        head, indent = f"{label:<{_LABEL}}{score:<{_SCORE}}", _LABEL + _SCORE
        if not self.console.is_terminal:
            return [Text(head) + text]
        is_narrow = self.console.width < _NARROW
        wrapped = text.wrap(self.console, self.console.width - indent * (not is_narrow)) or [Text()]
        for line in wrapped:
            line.rstrip()
        if is_narrow:
            return [*[Text(head.rstrip())] * bool(head.strip()), *wrapped]
        return [Text(head if number == 0 else " " * indent) + line for number, line in enumerate(wrapped)]


def _as_text(text: str | Text) -> Text:
    return Text(printable(text)) if isinstance(text, str) else text


def _headline(original: str, text: str, cosine: float) -> str:
    """What came back, in a line."""
    found, count = count_recovered(original, text)
    verdict = verdict_of(cosine, "encoder")
    words = f"content words recovered {found} of {count}, " if count else ""
    return f"{words}cosine {cosine:.3f}, {verdict}: {TEXT_VERDICTS[verdict]}"
