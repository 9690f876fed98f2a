"""A recovered text as HTML: the original above it, what leaked in it, every step for the replay, and the verdict."""

from collections.abc import Sequence
from html import escape

from inverter import Draft, Result
from parts import TINT_LEGEND, climb_html, percent, tint_of
from recover import Recovery
from words import CLOSE, LEAKED, LOST, ContentWord, content_words

# on the slider's own element: the page has no other script for it, and the server keeps nothing
REPLAY = (
    "const part = this.closest('.replay'), frames = [...part.querySelectorAll('.frame')];"
    "frames.forEach((frame, index) => frame.hidden = index != this.value);"
    "const label = frames[this.value].dataset.label;"
    "part.querySelector('output').textContent = label; this.setAttribute('aria-valuetext', label);"
)
# of a content word that the encoder alone brings back
WITH_ENCODER = "leaked-encoder"
# what a mark says, for those who hear the page
HEARD = {LEAKED: "leaked", CLOSE: "close", LOST: "not recovered", WITH_ENCODER: "leaked with the encoder"}
LEAK_LEGEND = (
    '<p class="legend">Marks in the original: <mark class="leaked">leaked</mark> <mark class="close">close</mark>, '
    'another form of the word; <mark class="lost">not recovered</mark></p>'
)


def recovery_html(recovery: Recovery) -> str:
    """All of it: while it runs the newest state, at the end every state, the verdict and the figures."""
    is_done = recovery.result is not None
    original = marked_html(recovery.original.text, content_words(recovery.original.text, recovery.text))
    shown = replay_html(recovery.drafts, recovery.result) if is_done else newest_html(recovery.drafts)
    parts = ["<h2>Original</h2>", f'<p class="original">{original}</p>', "<h2>Recovered from the vector</h2>", shown]
    parts += [_headline(recovery), _rounds(recovery.rounds)]
    if recovery.result is not None:
        parts += [LEAK_LEGEND, TINT_LEGEND, details_html(recovery.drafts[-1], recovery.result)]
    return f'<section class="recovery" data-done="{str(is_done).lower()}">{"".join(parts)}</section>'


def said(recovery: Recovery) -> str:
    """The result, for those who hear the page."""
    found, total = recovery.came_back
    assert recovery.result is not None
    return f"Content words recovered: {found} of {total}. Verdict: {recovery.result.verdict}."


def marked_html(text: str, words: Sequence[ContentWord]) -> str:
    """A text with its content words marked by whether they came back, in words for those who hear it."""
    parts, position = [], 0
    for word in words:
        heard = f'<span class="heard"> ({HEARD[word.state]})</span>'
        marked = f'<mark class="{word.state}">{escape(text[word.start : word.end])}{heard}</mark>'
        parts += [escape(text[position : word.start]), marked]
        position = word.end
    return "".join([*parts, escape(text[position:])])


def draft_html(draft: Draft, is_exact: bool = False) -> str:
    """A state of the text, each token tinted by its confidence, a block for each that is masked.

    is_exact: the vector has shown that the text is right, whatever the model thought of each token.
    """
    parts = []
    for position, (piece, joined) in enumerate(zip(draft.pieces, draft.joined, strict=True)):
        before = position + 1 < len(draft.joined) and draft.joined[position + 1]
        tint = "" if draft.confidence is None else "p3" if is_exact else tint_of(draft.confidence[position])
        kind = "masked" if piece is None else tint
        classes = " ".join(filter(None, [kind, "joined" * joined, "before" * before]))
        shown = "&emsp;" if piece is None else escape(piece)
        parts.append(f'{"" if joined or not position else " "}<span class="{classes}">{shown}</span>')
    return f'<p class="draft" data-masked="{draft.masked}">{"".join(parts)}</p>'


def newest_html(drafts: Sequence[Draft]) -> str:
    """The newest state, and which one it is."""
    return f'<div class="replay">{draft_html(drafts[-1])}<p class="counter">{label_of(drafts[-1])}</p></div>'


def replay_html(drafts: Sequence[Draft], result: Result) -> str:
    """Every state, the last one shown, and a slider that shows another."""
    last, frames = len(drafts) - 1, []
    for index, draft in enumerate(drafts):
        shown = draft_html(draft, index == last and result.verdict == "verified")
        hidden = " hidden" * (index != last)
        frames.append(f'<div class="frame" data-label="{label_of(draft)}"{hidden}>{shown}</div>')
    slider = (
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="Replay: step" '
        f'aria-valuetext="{label_of(drafts[-1])}" oninput="{REPLAY}">'
    )
    return (
        f'<div class="replay">{"".join(frames)}<p class="counter"><label>Replay {slider}</label> '
        f"<output>{label_of(drafts[-1])}</output></p></div>"
    )


def label_of(draft: Draft) -> str:
    """Which state it is, with its cosine."""
    return draft.label + ("" if draft.cosine is None else f", cosine {draft.cosine:.3f}")


def verdict_html(result: Result) -> str:
    """What the cosine says, in words."""
    said = f"{result.verdict_in_words} (cosine {result.cosine:.3f} by the encoder)"
    return f'<b class="verdict">{result.verdict}</b>: {said}'


def _headline(recovery: Recovery) -> str:
    found, total = recovery.came_back
    back = f"Content words recovered: <b>{found} of {total}</b>." if total else "There are no content words in it."
    verdict = "" if recovery.result is None else f" Verdict: {verdict_html(recovery.result)}."
    return f'<p class="headline">{back}{verdict}</p>'


def _rounds(rounds: Sequence[Draft]) -> str:
    if not rounds:
        return ""
    return f"<p>Cosine with the vector after each round, by the chosen judge:</p>{_climb(rounds)}"


def _climb(rounds: Sequence[Draft]) -> str:
    return climb_html([draft.cosine or 0.0 for draft in rounds])


def details_html(draft: Draft, result: Result) -> str:
    """Tokens in place, the confidence of each token, and what it cost."""
    rows = []
    if result.accuracy is not None:
        rows.append(f"{percent_of(result.accuracy)} of the original’s tokens stand at their own position.")
    if draft.confidence is not None:
        pairs = zip(draft.pieces, draft.confidence, strict=True)
        rows.append("Confidence: " + " · ".join(f"{escape(piece or '')} {percent(value)}" for piece, value in pairs))
    rows.append(costs(result))
    items = "".join(f"<li>{row}</li>" for row in rows)
    return f"<details><summary>Details</summary><ul>{items}</ul></details>"


def percent_of(share: float) -> str:
    """A share that was counted: 0 and 100 are exact."""
    return percent(share) if 0 < share < 1 else f"{100 * share:.0f} %"


def costs(result: Result) -> str:
    """Passes, calls and the model's seconds."""
    counted = (
        (result.num_forward_passes, "forward passes"),
        (result.surrogate_calls, "surrogate calls"),
        (result.encoder_calls, "encoder calls"),
    )
    return ", ".join(f"{count:,} {name}" for count, name in counted if count) + f"; {result.seconds:.2f} seconds."
