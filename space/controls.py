"""The controls of all settings of `generate`: each is made from the table of settings, and has its range here.

The API's parameters are the same, in the same order.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from bounds import Bound, Choice, NumberOrDefault, choice_of, number_of, number_or_default
from inverter import Inverter

from modeling_embinv.settings_embinv import FEEDBACK

# what stands open on the page, row by row
ROWS = (
    ("strategy", "num_steps", "guidance_scale"),
    ("temperature", "remask_ratio"),
    ("num_candidates", "num_corrections", "feedback", "num_searches"),
)
# what stands behind a heading
MORE = {
    "More settings: how a text is written": (("draft", "num_draft_beams", "restart_ratio", "max_length"),),
    "More settings: how a search goes": (
        ("num_drafts", "num_beams", "num_proposals", "num_moves"),
        ("num_redrafts", "word_bonus", "num_rewrites", "num_hops"),
        ("num_checked", "num_scouted", "stop_cosine"),
        ("candidate_temperature", "likelihood_weight", "overshoot"),
    ),
}
CONTROLS = tuple(name for rows in (ROWS, *MORE.values()) for names in rows for name in names)


def bounds_of(inverter: Inverter) -> dict[str, Bound]:
    """The bounds of `CONTROLS` for this model, in their order."""
    unlearned = () if inverter.model.config.causal_share else ("autoregressive",)
    length = inverter.max_tokens + 1
    bounds = {
        "strategy": choice_of("strategy", unlearned),
        "num_steps": number_of("num_steps", 32),
        "guidance_scale": number_of("guidance_scale", 4, low=0, step=0.1),
        "temperature": number_or_default("temperature", 10, "0", "0.5", "0.7", "1"),
        "remask_ratio": number_of("remask_ratio", 0.5, low=0, step=0.05),
        "num_candidates": number_of("num_candidates", 32),
        "num_corrections": number_of("num_corrections", 20),
        "feedback": Choice("Judged by", inverter.judges, FEEDBACK.help),
        "num_searches": number_of("num_searches", 4),
        "draft": choice_of("draft", unlearned),
        "num_draft_beams": number_of("num_draft_beams", 8),
        "restart_ratio": number_of("restart_ratio", 0.9, low=0, step=0.05),
        "max_length": number_or_default("max_length", length, str(length // 2), str(length)),
        "num_drafts": number_or_default("num_drafts", 32, "0", "8", "16"),
        "num_beams": number_of("num_beams", 8),
        "num_proposals": number_of("num_proposals", 128),
        "num_moves": number_or_default("num_moves", 128, "0", "8", "16", "32"),
        "num_redrafts": number_or_default("num_redrafts", 128, "0", "4", "8", "16"),
        "word_bonus": number_of("word_bonus", 10, low=0, step=0.5),
        "num_checked": number_of("num_checked", 32),
        "num_scouted": number_or_default("num_scouted", 20, "0", "5", "10"),
        "num_hops": number_or_default("num_hops", 4, "1", "2", "3"),
        "num_rewrites": number_of("num_rewrites", 16),
        "stop_cosine": number_or_default("stop_cosine", 0.999999, "0.99", "0.999"),
        "candidate_temperature": number_of("candidate_temperature", 2, low=0.1, step=0.1),
        "likelihood_weight": number_or_default("likelihood_weight", 1, "0", "0.01", "0.1"),
        "overshoot": number_of("overshoot", 4, low=0, step=0.1),
    }
    return {name: bounds[name] for name in CONTROLS}


def controls(bounds: dict[str, Bound]) -> list[gr.components.Component]:
    """Puts all controls on the page; in the order of `CONTROLS`."""
    made = _rows(ROWS, bounds)
    for heading, rows in MORE.items():
        with gr.Accordion(heading, open=False):
            made += _rows(rows, bounds)
    return made


def _rows(rows: Sequence[Sequence[str]], bounds: dict[str, Bound]) -> list[gr.components.Component]:
    made = []
    for names in rows:
        with gr.Row():
            made += [_control(bounds[name]) for name in names]
    return made


def _control(bound: Bound) -> gr.components.Component:
    is_short = isinstance(bound, Choice) and len(bound.choices) == 2
    return bound.control(gr.Radio) if is_short else bound.control()


def settings_of(bounds: dict[str, Bound], values: Sequence[Any]) -> dict[str, Any]:
    """The values of `CONTROLS` by name: arguments of `Inverter.drafts`.

    Raises:
        ValueError: a typed value that is no number within its range.
    """
    pairs = zip(bounds.items(), values, strict=True)
    return {name: one.number_of(value) if isinstance(one, NumberOrDefault) else value for (name, one), value in pairs}


def with_parameters(function: Callable[..., Any], bounds: dict[str, Bound]) -> Callable[..., Any]:
    """A function of (…, *values), whose signature has a parameter for each bound in place of `values`.

    Wrap the function before: from Python 3.14 on, `functools.wraps` copies no annotation that was added.
    """
    signature, keyword = inspect.signature(function), inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_POSITIONAL]
    new = [
        inspect.Parameter(name, keyword, default=bound.default, annotation=bound.kind)
        for name, bound in bounds.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *new])  # type: ignore[attr-defined]
    function.__annotations__ |= {one.name: one.annotation for one in new}
    return function
