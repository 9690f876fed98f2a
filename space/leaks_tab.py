"""The tab "What leaks": some lines, how their vectors are stored, and what two attackers recover of them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import recover_tab
from bounds import Choice, Number, Text
from inverter import Inverter
from leaks import MAX_LINES, leak
from leaks_html import counter_html, leaks_html
from parts import endpoint, failed, offer_run, run_buttons
from protection import Protection
from recover_tab import PRESET

from modeling_embinv.presets_embinv import DEFAULT_PRESET

EXAMPLE = (
    "Maria Lopez was treated for asthma in Boston.\nThe transfer of 4,500 dollars failed on Monday.\n"
    "My son is afraid of dogs."
)
TEXT = Text(f"Text, up to {MAX_LINES} lines", 40_000)
NOISE_HELP = "standard deviation of what is added to each number; they are about 0.05 in size"
NOISE = Number("Noise λ", 0, 0.1, 0, 0.005, NOISE_HELP)
STORAGE = Choice("Stored as", ("float32", "int8"))


def leaks_tab(inverter: Inverter, guarded: Callable[..., Any]) -> None:
    """Paste, protect, attack.

    Args:
        guarded: makes a handler of the page from a function: its errors are one line.
    """
    dims = tuple(str(inverter.embedding_dim * share // 4) for share in (4, 3, 2, 1))
    kept = Choice("Numbers kept of each vector", dims)

    def run(text: str, noise: float, storage: str, numbers: str, preset: str) -> Iterator[Any]:
        whole = numbers == dims[0]
        return leak(inverter, text, Protection(noise, storage == "int8", None if whole else int(numbers)), preset)

    @guarded
    def show(text: str, noise: float, storage: str, numbers: str, preset: str) -> Iterator[list[Any]]:
        """Message and result, as it grows; an error takes the place of the old result."""
        yield ["", ""]
        try:
            for found in run(text, noise, storage, numbers, preset):
                yield [gr.skip()] * 2 if found is None else [counter_html(found, preset), leaks_html(found)]
        except ValueError as error:
            yield failed(error)

    @guarded
    def leaks(
        text: str, noise: float = 0.0, storage: str = "float32", numbers: str = dims[0], preset: str = DEFAULT_PRESET
    ) -> Iterator[dict]:  # type: ignore[type-arg]
        """Which content words of each line come back out of its stored vector.

        noise: λ. storage: float32 or int8. numbers: how many of each vector are kept. The result has `recall_at_10`
        of the protected search, and for each of the `attackers` the words recovered, by kind, and the texts.
        """
        latest: dict[str, Any] = {}
        for found in run(text, noise, storage, numbers, preset):
            latest = latest if found is None else found.as_json()
            yield latest  # each second, too: gradio sees by it whether anybody listens

    _page(arrival(inverter), kept, show)
    endpoint("leaks", leaks, TEXT, NOISE, STORAGE, kept, PRESET)


@functools.cache
def arrival(inverter: Inverter) -> str:
    """The example's result, which stands there when a visitor comes; computed once."""
    *_, found = filter(None, leak(inverter, EXAMPLE, Protection(), recover_tab.ARRIVAL))
    return leaks_html(found)


def _page(first: str, kept: Choice, show: Callable[..., Any]) -> None:
    """The tab's controls and events."""
    gr.Markdown(
        "Paste lines as they lie in a store. Two attackers read their vectors: one holds **the vectors alone**, the "
        "other also runs **the public encoder** that made them. Add noise, round or cut the vectors, and see what "
        "that hides, and what it costs the search."
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            text = TEXT.control(EXAMPLE, lines=5, max_lines=12)
            preset = PRESET.control(gr.Radio)
        with gr.Column(scale=2, min_width=280):
            noise = NOISE.control()
            storage = STORAGE.control(gr.Radio)
            numbers = kept.control(gr.Radio)
            with gr.Row(elem_classes="runs"):
                go, stop = run_buttons("What leaks?", "leaks")
    message = gr.HTML(elem_id="leaks-message", elem_classes="message", padding=False)
    result = gr.HTML(first, elem_id="leaks-result", elem_classes="result", padding=False)
    offer_run(go, stop, show, [text, noise, storage, numbers, preset], (message, result), "leaks-result")
