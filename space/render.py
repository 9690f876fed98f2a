"""Drafts and comparisons as HTML: no script, no network, readable on light and dark pages."""

from html import escape

from inverter import Draft, Result

from modeling_embinv.gap_states_embinv import EXACT

CSS = """
.draft { font-size: 1.35rem; line-height: 2.1; min-height: 5.2rem; padding: .6rem .2rem; overflow-wrap: anywhere; }
.draft span { border-radius: .3em; padding: .12em .22em; }
.draft .joined { padding-left: 0; border-top-left-radius: 0; border-bottom-left-radius: 0; }
.draft .before { padding-right: 0; border-top-right-radius: 0; border-bottom-right-radius: 0; }
.sure { background: rgba(38, 162, 89, .30); }
.likely { background: rgba(222, 165, 0, .32); }
.doubtful { background: rgba(224, 60, 60, .30); font-style: italic; }
.masked { background: rgba(128, 128, 128, .38); color: transparent; user-select: none; }
.legend { font-size: .85rem; opacity: .85; }
.legend span { border-radius: .3em; padding: .1em .4em; margin-right: .5em; display: inline-block; }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; }
.figures b { font-size: 1.25rem; display: block; }
.leak { line-height: 2; }
.leak mark { border-radius: .3em; padding: .1em .25em; color: inherit; }
.leak .survived { background: rgba(224, 60, 60, .38); font-weight: 600; }
.leak .lost { background: rgba(128, 128, 128, .25); text-decoration: line-through; }
.gradio-container { --color-accent: var(--primary-700); }
.dark .gradio-container, .gradio-container.dark { --color-accent: var(--primary-400); }
footer { display: none !important; }
"""
LEVELS = ((0.9, "sure"), (0.5, "likely"), (0.0, "doubtful"))
# what a cosine says, from its least value; texts that have nothing to do with a vector reach 0.1
VERDICTS = (
    (EXACT, "This text has exactly this vector: it is almost certainly the exact text."),
    (0.3, "This text is near the vector: expect the gist, some words differ."),
    (-1.0, "This text does not fit the vector: it is of another encoder, or of a text that this model cannot write."),
)
LEGEND = (
    '<p class="legend">confidence: <span class="sure">90 % and more</span><span class="likely">50 % and more</span>'
    '<span class="doubtful">less</span><span class="masked" aria-hidden="true">&emsp;&emsp;</span> still masked</p>'
)


def draft_html(draft: Draft) -> str:
    """The draft, each token tinted by its confidence, a block for each [MASK]."""
    parts = []
    for position, (piece, confidence, joined) in enumerate(
        zip(draft.pieces, draft.confidence, draft.joined, strict=True)
    ):
        before = position + 1 < len(draft.joined) and draft.joined[position + 1]
        kind = "masked" if piece is None else next(name for lowest, name in LEVELS if confidence >= lowest)
        classes = " ".join([kind] + ["joined"] * joined + ["before"] * before)
        shown = "mask" if piece is None else escape(piece)
        title = "" if piece is None else f' title="{confidence:.0%}"'
        parts.append(f'{"" if joined or not position else " "}<span class="{classes}"{title}>{shown}</span>')
    return f'<div class="draft" data-masked="{draft.masked}">{"".join(parts)}</div>'


def figures_html(result: Result) -> str:
    """What the cosine says; cosine, accuracy, passes and time."""
    entries = [("cosine with the vector", result.cosine, "{:.3f}"), ("tokens in place", result.accuracy, "{:.0%}")]
    entries += [("forward passes", result.num_forward_passes, "{}"), ("milliseconds", result.milliseconds, "{:.0f}")]
    entries += [("encoder calls", result.encoder_calls or None, "{}")]
    entries += [("surrogate calls", result.surrogate_calls or None, "{}")]
    shown = [f"<div><b>{form.format(value)}</b>{name}</div>" for name, value, form in entries if value is not None]
    verdict = next(words for least, words in VERDICTS if result.cosine >= least)
    return f'<p class="verdict">{verdict}</p><div class="figures">{"".join(shown)}</div>'
