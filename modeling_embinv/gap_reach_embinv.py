"""How far the judge reads a redacted text: gaps behind that stay as they are."""

from typing import Any

from .errors_embinv import EmbInvError
from .errors_embinv import warn
from .gap_states_embinv import RedactedText

# what to do about start and end tokens in rows of ids
WITHOUT_SPECIAL = "Rows of ids are the text alone: give the tokenizer add_special_tokens=False."


def judged_text(
    text: RedactedText, row: int, config: Any, feedback: Any = "surrogate", longest: int | None = None
) -> RedactedText:
    """What the judge reads of a text; gaps behind that are left out, see `RedactedText.unread`.

    Args:
        row: of the text, for errors to name. config: of the model.
        feedback, longest: as of `fill`.

    Raises:
        EmbInvError: for a text that the judge cannot read, or that has no gap where it reads.
    """
    if isinstance(feedback, str):
        return _judged_by_surrogate(text, row, config)
    return text if longest is None else read_text(text, row, longest)


def _judged_by_surrogate(text: RedactedText, row: int, config: Any) -> RedactedText:
    """What the surrogate of `config` reads of a text.

    A surrogate with the encoder's own layers reads as far as the encoder does: behind that the vector says nothing,
    and the gaps there are left out. Another one must read the whole text.
    """
    if config.surrogate_length is not None:
        text = read_text(text, row, config.surrogate_length)
    elif text.num_tokens_at_least > config.longest_judged:
        raise EmbInvError(
            f"text {row} has at least {text.num_tokens_at_least} tokens; the surrogate judges {config.longest_judged} "
            "at most: give the encoder as feedback."
        )
    if not text.texts and text.pieces[-1][-1:] == (config.eos_token_id,):
        raise EmbInvError(f"text {row} ends with the end token, {config.eos_token_id}. {WITHOUT_SPECIAL}")
    if text.holds(config.eos_token_id):
        raise EmbInvError(
            f"text {row} holds the tokenizer's end token, or a list for it does; there the surrogate stops: give the "
            "encoder as feedback."
        )
    return text


def read_text(text: RedactedText, row: int, most: int) -> RedactedText:
    """The text without the gaps that stand behind its first `most` tokens, however few the other gaps hide.

    Raises:
        EmbInvError: for a text that has no other gaps; the line names the `row`.
    """
    text = _cut(text, most)
    if not text.gaps:
        raise EmbInvError(
            f"text {row} has gaps only behind its first {most} tokens: the encoder reads no further, and the vector "
            "says nothing of them."
        )
    return text


def _cut(text: RedactedText, most: int) -> RedactedText:
    position = 0
    for at, gap in enumerate(text.gaps):
        position += len(text.pieces[at])
        if position >= most:
            known, spaces = text.texts[at : at + 1], ("",)[: len(text.texts)]
            if known and known[0].endswith(" "):  # it may belong to the word in the gap
                known, spaces = (known[0][:-1],), (" ",)
            behind = RedactedText(((), *text.pieces[at + 1 :]), (*spaces, *text.texts[at + 1 :]), text.gaps[at:])
            return RedactedText(text.pieces[: at + 1], (*text.texts[:at], *known), text.gaps[:at], behind)
        position += gap.shortest
    return text


def warn_of_long_choices(text: RedactedText, row: int, most: int) -> None:
    """Warns of entries of lists that are not tried, as the text with them would have more than `most` tokens."""
    kept = text.within(most).gaps
    for gap, short in zip(text.gaps, kept, strict=True):
        if left_out := len(gap.choices or ()) - len(short.choices or ()):
            count = f"{left_out} of the {len(gap.choices or ())} choices for {gap.mark}"
            warn(
                f"text {row}: {count} are left out: with them it has more than the {most} tokens that the surrogate "
                "judges; give the encoder as feedback."
            )
