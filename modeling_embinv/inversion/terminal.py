"""Recovered texts on a terminal, tinted by the model's confidence in them."""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from ..data.files import writing
from ..texts_embinv import decode
from .rows import Inversion

# (lowest confidence, name, style). The colours are the terminal's own, which its theme makes legible, and which one of
# eight colours has. The lowest level is in italics too, so that it stands out without colours.
LEVELS = (
    (0.9, "at least 90\u00a0% sure", "green"),
    (0.5, "at least 50\u00a0%", "yellow"),
    (0.0, "below 50\u00a0%", "italic red"),
)


def tint(confidence: float) -> str:
    """The style of a token of this confidence in [0, 1]."""
    return next((style for lowest, _, style in LEVELS if confidence >= lowest), LEVELS[-1][2])


def legend() -> Text:
    """What the tints mean, in one line."""
    parts: list[str | tuple[str, str]] = ["Colours: "]
    for _, name, style in LEVELS:
        parts += [(name, style), ", "]
    return Text.assemble(*parts[:-1], ".")


def printable(text: str) -> str:
    """The text with spaces for control characters, so that it cannot steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def tinted(tokenizer: PreTrainedTokenizerBase, ids: list[int], confidences: Sequence[float]) -> Text:
    """The decoded text of `ids` (L), each token in the tint of its confidence (L).

    The words are exactly those of `decode`; control characters become spaces, so that no text can
    steer the terminal. Pieces of a character that several tokens share (byte-level vocabularies) stay untinted.
    """
    (text,) = decode(tokenizer, [ids])
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None) or ""
    result = Text(printable(text))
    position = 0
    for token, confidence in zip(tokenizer.convert_ids_to_tokens(ids), confidences, strict=True):
        piece = tokenizer.convert_tokens_to_string([token]).strip().removeprefix(prefix)
        start = text.find(piece, position)
        if start >= 0:
            position = start + len(piece)
            result.stylize(tint(confidence), start, position)
    return result


def write_line(line: str) -> None:
    """Writes a line to standard output at once, as UTF-8 whatever the terminal's own encoding is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        with writing("standard output"):
            sys.stdout.flush()  # what was printed before it
            sys.stdout.buffer.write(f"{line}\n".encode())
            sys.stdout.buffer.flush()
    else:  # a notebook's, which takes any text
        print(line, flush=True)


def standard_output() -> Console:
    """Standard output for reading: what its encoding does not have is shown as a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console()


def print_inversions(inversions: Iterable[Inversion], tokenizer: PreTrainedTokenizerBase, console: Console) -> int:
    """Prints a line for each `Inversion`: row, id, cosine and verdict, confidence, tinted text; returns how many."""
    count = 0
    for inversion in inversions:
        ids: Any = tokenizer.convert_tokens_to_ids(inversion.tokens)
        text = tinted(tokenizer, ids, inversion.token_confidence) if ids else Text(printable(inversion.text))
        name = "" if inversion.id is None else f"  {printable(inversion.id)}"
        cosine = "" if inversion.cosine is None else f"  {inversion.cosine:.3f} {inversion.verdict:<9}"
        line = Text.assemble(f"{inversion.row:>6}{name}{cosine}  {100 * inversion.confidence:3.0f} %  ", text)
        console.print(line, soft_wrap=True, highlight=False)
        count += 1
    return count


def print_fillings(rows: Iterable[dict[str, Any]], console: Console) -> int:
    """Prints filled texts, and what is known of each gap; returns how many there were.

    Args:
        rows: as `fillings.SCHEMA` has them. Each is its number, id, cosine and verdict; the text, its filled words in
            brackets; and for each gap the words, their probability and the runners-up.
        console: where they are printed.
    """
    count = 0
    for row in rows:
        name = "" if row["id"] is None else f"  {printable(row['id'])}"
        verdict = f"{row['verdict']}: {row['verdict_in_words']}"
        lines = [Text(f"{row['row']:>6}{name}  cosine {row['cosine']:.3f}  {verdict}"), filled(row, 8), *_gaps(row)]
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)
        count += 1
    return count


def filled(row: dict[str, Any], indent: int = 0) -> Text:
    """The text, each filled gap in brackets, underlined and in the tint of its probability."""
    text, position = Text(" " * indent), 0
    for gap in row["gaps"]:
        text.append(printable(row["text"][position : gap["start"]]))
        text.append(_bracketed(gap))
        position = gap["end"]
    return text.append(printable(row["text"][position:]))


def _bracketed(gap: dict[str, Any]) -> Text:
    return Text(f"[{printable(gap['text'])}]", style=f"underline {tint(gap['probability'])}")


def _gaps(row: dict[str, Any]) -> Iterator[Text]:
    """A line for each gap: the words, how probable they are, and the runners-up of at least 1 %, or the first one."""
    for gap in row["gaps"]:
        shown = [one for one in gap["alternatives"] if one["probability"] >= 0.005] or gap["alternatives"][:1]
        others = [
            f"{printable(one['text'])} {100 * one['probability']:.0f} % (cosine {one['cosine']:.3f})" for one in shown
        ]
        also = f"; else {', '.join(others)}" if others else ""
        mark = printable(gap["mark"])
        yield Text.assemble(" " * 8, f"{mark} = ", _bracketed(gap), f" {100 * gap['probability']:.0f} %{also}")
