"""The tab "For researchers": all settings of `generate`, the strategies side by side, mixed vectors."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import gradio as gr
from bounds import Bound, Number, Text, shown
from comparing import compare, mix
from controls import bounds_of, controls, settings_of, with_parameters
from inverter import Draft, Inverter
from parts import done_html, endpoint, failed, notes_html, offer_run, run_buttons
from recover_tab import MAX_CHARACTERS
from researchers_html import comparison_html, inverted_html, mixed_html
from texts import read_text

SENTENCE = "We will meet at the station on Friday evening."
TEXT, FIRST, SECOND = (Text(name, MAX_CHARACTERS) for name in ("Text", "From", "To"))
SEED, POINTS = Number("Seed", 0, 2**32 - 1, 0), Number("Points on the way", 3, 15, 7)


def researchers_tab(inverter: Inverter, guarded: Callable[..., Any]) -> None:
    """Three tabs within the tab.

    Args:
        guarded: makes a handler of the page from a function: its errors are one line.
    """
    bounds = bounds_of(inverter)
    with gr.Tab("All settings"):
        _settings_tab(inverter, bounds, guarded)
    with gr.Tab("Compare strategies"):
        _compare_tab(inverter, bounds, guarded)
    with gr.Tab("Mix two vectors"):
        _mix_tab(inverter, guarded)


def _settings_tab(inverter: Inverter, bounds: dict[str, Bound], guarded: Callable[..., Any]) -> None:
    """A sentence by settings of one's own."""

    @guarded
    def show(text: str, seed: int, *values: Any) -> Iterator[list[Any]]:
        """Message and result, as it grows; an error takes the place of the old result."""
        yield ["", ""]
        drafts: list[Draft] = []
        try:
            settings, reading = settings_of(bounds, values), read_text(inverter, text)
            for item in inverter.drafts(inverter.embed([reading.text])[0], seed, **settings):
                if item is None:
                    yield [gr.skip(), gr.skip()]
                    continue
                if isinstance(item, Draft):
                    drafts.append(item)
                    result = None
                else:
                    result, item.accuracy = item, inverter.accuracy(reading.ids, item.ids)
                done = "" if result is None else done_html()
                yield [notes_html(reading.notes) + done, inverted_html(drafts, result)]
        except ValueError as error:
            yield failed(error, said=shown(str(error)))

    def invert(text: str, seed: int = 0, *values: Any) -> Iterator[dict]:  # type: ignore[type-arg]
        """Embed a text and recover it by any settings of `generate`.

        The result has text, cosine, accuracy (tokens in place), calls and seconds, and `steps`: each pass of the first
        draft and each round of the search.
        """
        settings, reading = settings_of(bounds, values), read_text(inverter, text)
        found: dict[str, Any] = {"original": reading.text, "notes": list(reading.notes), "steps": []}
        for item in inverter.drafts(inverter.embed([reading.text])[0], seed, **settings):
            if isinstance(item, Draft):
                found["steps"].append(item.as_json())
            elif item is not None:
                item.accuracy = inverter.accuracy(reading.ids, item.ids)
                found |= item.as_json()
            yield {**found, "steps": [*found["steps"]]}  # a new one, as gradio sends what has changed

    gr.Markdown("A sentence, embedded and recovered by settings of your own. The tab Recover has good ones.")
    with gr.Row():
        text = TEXT.control(SENTENCE, scale=3, max_lines=3)
        seed = SEED.box()
    _run("settings", "Run", show, [text, seed, *controls(bounds)])
    endpoint("invert", with_parameters(guarded(invert), bounds), TEXT, SEED, *bounds.values())


def _compare_tab(inverter: Inverter, bounds: dict[str, Bound], guarded: Callable[..., Any]) -> None:
    """The strategies side by side."""
    strategies, steps_bound = bounds["strategy"].choices, bounds["num_steps"]

    @guarded
    def show(text: str, steps: int, seed: int) -> Iterator[list[Any]]:
        """Message and table, as it grows; an error takes the place of the old result."""
        yield ["", ""]
        try:
            for found in compare(inverter, text, steps, seed, strategies):
                if found is None:
                    yield [gr.skip(), gr.skip()]
                    continue
                done = done_html() if found.is_done else ""
                yield [notes_html(found.notes) + done, comparison_html(found)]
        except ValueError as error:
            yield failed(error)

    @guarded
    def compared(text: str, num_steps: int = steps_bound.default, seed: int = 0) -> Iterator[list]:  # type: ignore[type-arg]
        """Recover a text by every strategy: for each its text, and cosine and tokens in place after each pass."""
        latest: list[Any] = []
        for found in compare(inverter, text, num_steps, seed, strategies):
            latest = latest if found is None else [row.as_json() for row in found.rows]
            yield latest

    gr.Markdown("The same vector by each order of writing, without a search. Some sample, and need more passes.")
    with gr.Row():
        text = TEXT.control(SENTENCE, scale=3, max_lines=3)
        steps = steps_bound.control()
        seed = SEED.box()
    _run("compare", "Compare", show, [text, steps, seed])
    endpoint("compare", compared, TEXT, steps_bound, SEED)


def _mix_tab(inverter: Inverter, guarded: Callable[..., Any]) -> None:
    """Between two sentences."""

    @guarded
    def show(first: str, second: str, points: int) -> Iterator[list[Any]]:
        """Message and table; an error takes the place of the old result."""
        yield ["", ""]
        try:
            notes = [note for text in (first, second) for note in read_text(inverter, text).notes]
            told = notes_html(dict.fromkeys(notes)) + done_html()
            for rows in mix(inverter, first, second, points):
                yield [gr.skip()] * 2 if rows is None else [told, mixed_html(rows)]
        except ValueError as error:
            yield failed(error)

    @guarded
    def mixed(first: str, second: str, points: int = POINTS.default) -> Iterator[list]:  # type: ignore[type-arg]
        """Texts between the vectors of two others: for each point its share of the second, text and both cosines."""
        for rows in mix(inverter, first, second, points):
            yield [asdict(row) for row in rows or []]

    gr.Markdown("Texts on the great circle between two vectors: what lies between two sentences.")
    with gr.Row():
        first = FIRST.control("The dog slept in front of the fire.", max_lines=3)
        second = SECOND.control("The train leaves at seven in the morning.", max_lines=3)
    points = POINTS.control()
    _run("mix", "Mix", show, [first, second, points])
    endpoint("mix", mixed, FIRST, SECOND, POINTS)


def _run(name: str, verb: str, show: Callable[..., Any], inputs: list[Any]) -> None:
    """The buttons, the message and the result of a tab, and its events."""
    with gr.Row(elem_classes="runs"):
        go, stop = run_buttons(verb, name)
    message = gr.HTML(elem_id=f"{name}-message", elem_classes="message", padding=False)
    result = gr.HTML(elem_id=f"{name}-result", elem_classes=["result", "later"], padding=False)
    offer_run(go, stop, show, inputs, (message, result), f"{name}-result")
