"""`embinv demo`: embed a few sentences and invert their vectors."""

import argparse
import re
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.flags import Commands
from ..errors_embinv import EmbInvError
from ..progress.rates import vectors
from .options import (
    add_encoder,
    add_model,
    checked_settings,
    chosen_settings,
)
from .outcome import epilog
from .resources import encoder_of, feedback_of, load_model

if TYPE_CHECKING:
    from rich.console import Console

    from ..data.encoders import Encoder
    from .ladder import Ladder

_EXAMPLES = """
embinv demo
embinv demo "Our meeting is at noon." "My password is hunter2." --preset thorough
embinv demo --num-candidates 16 --num-corrections 20 --feedback encoder
"""

DEMO_SENTENCES = (
    "The dog slept in front of the fire.",
    "She bought a red car in Paris last summer.",
    "My password is hidden under the keyboard.",
    "The patient was given two pills every morning.",
    "We will meet at the station on Friday evening.",
    "He sold his company to a bank for five million dollars.",
)
# what hides a word, and a text of fewer words has nothing to hide
BARS, SHORTEST = "▇▇▇", 5
_FILLING = "filling the gaps …"
# of a sentence that is left out: characters that are shown, and parts that the tokenizer does not know
SHOWN, FEW = 40, 3


def add_demo(commands: Commands) -> None:
    """Adds the command `demo` and its flags."""
    parser = commands.add_parser("demo", help="embed a few sentences and invert their vectors")
    parser.epilog = epilog(_EXAMPLES)
    parser.add_argument(
        "sentences",
        nargs="*",
        type=_text,
        default=DEMO_SENTENCES,
        help="your own sentences; without them six examples",
    )
    add_model(parser)
    add_encoder(parser)
    parser.set_defaults(run=_demo)


def _text(argument: str) -> str:
    """The argument; what is no UTF-8 in it, and no tokenizer takes, becomes "?"."""
    return argument.encode("utf-8", "replace").decode("utf-8")


def _demo(options: argparse.Namespace) -> None:
    settings = checked_settings(options)
    if not any(map(str.strip, options.sentences)):
        raise EmbInvError("there is nothing to invert: every sentence is empty.")
    started = time.perf_counter()
    from rich.console import Console

    console = Console(highlight=False)
    with _loading(console):
        ladder, sentences, feedback = _ladder(options, settings, console)
    encoder = ladder.encoder
    for sentence in sentences:
        ladder.climb(sentence.original, encoder.encode([sentence.text]), sentence.note)
    _fill(ladder, [one.original for one in sentences], feedback)
    seconds = time.perf_counter() - started
    console.print(f"{vectors(len(sentences))} in {seconds:.0f} s: {ladder.costs}.", soft_wrap=not console.is_terminal)
    if console.is_terminal and console.color_system and not console.no_color:
        from ..inversion.terminal import legend

        console.print(legend())


def _loading(console: "Console") -> AbstractContextManager[Any]:
    """A line that stands on a terminal while seconds pass without another."""
    if not console.is_terminal or console.is_dumb_terminal:
        return nullcontext()
    from rich.live import Live
    from rich.text import Text

    line = Text("Loading the checkpoint and the encoder …", style="dim")
    return Live(line, console=console, transient=True, auto_refresh=False)


def _ladder(
    options: argparse.Namespace, settings: dict[str, Any], console: "Console"
) -> tuple["Ladder", list["_Sentence"], Any]:
    """The ladder, the sentences to climb it for, and what judges their texts."""
    from .ladder import Ladder, rungs

    model, tokenizer = load_model(options)
    settings, judge = chosen_settings(options, model, settings)
    model.generation_settings(None, dict(settings))  # what cannot be is found before the encoder is loaded
    encoder = encoder_of(model, options)
    feedback = feedback_of(judge, model, options, encoder)
    sentences = _embedded(list(options.sentences), encoder, model.config.max_sequence_length)
    steps = rungs(model, settings, judge, feedback, options.seed)
    return Ladder(model, tokenizer, encoder, steps, console), sentences, feedback


class _Sentence(NamedTuple):
    """A sentence as far as the model can write it.

    Attributes:
        original: as it was typed. text: what is embedded, as the tokenizer writes it. note: what was cut, or "".
    """

    original: str
    text: str
    note: str


def _embedded(sentences: list[str], encoder: "Encoder", length: int) -> list[_Sentence]:
    """The sentences, cut to `length` − 1 tokens; those that the tokenizer cannot write are named on stderr.

    Raises:
        EmbInvError: it can write none of them.
    """
    from ..data.canvas import canvas_of_rows

    encoded = encoder.tokenizer(sentences, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    rows, most, unknown_id = encoded["input_ids"], length - 1, encoder.tokenizer.unk_token_id
    canvas = canvas_of_rows(encoder.vocabulary, [row[:most] for row in rows], length)
    unknown = [
        list(dict.fromkeys(text[slice(*span)] for token, span in zip(row, spans, strict=True) if token == unknown_id))
        for text, row, spans in zip(sentences, rows, encoded["offset_mapping"], strict=True)
    ]
    _report_left_out(sentences, canvas.kept, unknown)
    found = []
    for index, text in zip(canvas.kept, canvas.texts, strict=True):
        original, note = sentences[index], ""
        if len(rows[index]) > most:
            original = original[: encoded["offset_mapping"][index][most - 1][1]]
            note = f"(cut to its first {most} of {len(rows[index])} tokens, which is what this model writes)"
        found.append(_Sentence(original, text, note))
    return found


def _fill(ladder: "Ladder", sentences: list[str], feedback: Any) -> None:
    """Hides the two longest words of the longest sentence, and fills the gaps by its vector."""
    from ..inversion.terminal import filled

    text = max(sentences, key=len)
    words = re.findall(r"\w+", text)
    if len(words) < SHORTEST:
        return
    redacted = text
    for word in sorted(words, key=len)[-2:]:
        redacted = re.sub(rf"\b{word}\b", BARS, redacted, count=1)
    ladder.show("redacted", redacted)
    encode = ladder.encoder.encode
    judge = feedback or (encode if ladder.model.surrogate is None else "surrogate")
    with ladder.watched("filled") as show:
        if show is not None:
            show(redacted, None, _FILLING)
        output = ladder.model.fill(
            encode([text]), [redacted], ladder.tokenizer, judge,
            on_step=show and (lambda texts: show(filled(texts[0].as_dict()), texts[0].cosine, _FILLING)),
        )  # fmt: skip
    ladder.costs.add(output)
    row = output.texts[0].as_dict()
    ladder.show("filled", filled(row), row["cosine"])
    ladder.show("", f"{row['verdict']}: {row['verdict_in_words']}")
    ladder.console.print()


def _report_left_out(sentences: list[str], kept: list[int], unknown: list[list[str]]) -> None:
    """Says on stderr which sentences the tokenizer cannot write, and by which parts of them it fails.

    Raises:
        EmbInvError: it can write none of them.
    """
    named = []
    for index in sorted(set(range(len(sentences))) - set(kept)):
        text = sentences[index] if len(sentences[index]) <= SHOWN else f"{sentences[index][:SHOWN]}…"
        parts = "".join(f" {part}" for part in unknown[index][:FEW])
        named.append(f"{text!r} (it does not know{parts})" if parts else repr(text))
    if named and not kept:
        raise EmbInvError(f"there is nothing to invert: the tokenizer cannot write {', '.join(named)}.")
    if named:
        print(f"embinv: warning: left out, as the tokenizer cannot write it: {', '.join(named)}", file=sys.stderr)
