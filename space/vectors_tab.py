"""The tab "Vectors": upload or paste vectors, and read all of them."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import recover_tab
from bounds import Choice, Text, Upload
from inverter import Inverter
from parts import INSTANT, JUDGES, endpoint, failed, offer_run, run_buttons
from recover_tab import PRESET
from vector_table import MOST, invert
from vectors import KINDS, Given, parse_file, parse_pasted
from vectors_html import counter_html, vectors_html

from modeling_embinv.presets_embinv import DEFAULT_PRESET

SAMPLES = (
    "Maria Lopez was treated for asthma in Boston.",
    "The transfer of 4,500 dollars failed on Monday.",
    "My password is hidden under the keyboard.",
    "We will meet at the station on Friday evening.",
)
SAMPLE_URL = "sample_vectors.json"
BOTH = "You pasted vectors, too: the file is read. Remove it to read what you pasted."


@functools.cache
def sample_file(inverter: Inverter) -> bytes:
    """A file of vectors to try."""
    vectors = inverter.embed(list(SAMPLES)).tolist()
    rows = [
        {"id": f"note-{number}", "embedding": [round(value, 6) for value in vector]}
        for number, vector in enumerate(vectors, start=1)
    ]
    return json.dumps(rows).encode()


@functools.cache
def sample_vector(inverter: Inverter) -> str:
    """A vector to try, as one would paste it."""
    return json.dumps([round(value, 6) for value in inverter.embed([SAMPLES[0]])[0].tolist()])


def vectors_tab(inverter: Inverter, guarded: Callable[..., Any]) -> None:
    """Paste or upload, invert, download.

    Args:
        guarded: makes a handler of the page from a function: its errors are one line.
    """
    dim, encoder = inverter.embedding_dim, inverter.model.config.encoder_id or "its own encoder"
    pasted_bound = Text(f"Vectors of {dim} numbers (JSON)", 400_000)
    file_bound = Upload("or a file", KINDS)
    judges = Choice("Judged by", inverter.judges, JUDGES)

    def given_by(pasted: str, file: dict[str, Any] | None, preset: str) -> tuple[Given, list[str]]:
        """The vectors, and which of two sources they are."""
        if not file:
            return parse_pasted(pasted, dim, MOST[preset], encoder), []
        name = file["orig_name"] or file["path"].rpartition("/")[2]
        return parse_file(file["path"], name, dim, MOST[preset], encoder), [BOTH] * (
            pasted.strip() not in ("", sample_vector(inverter))
        )

    @guarded
    def show(pasted: str, file: dict[str, Any] | None, preset: str, judge: str) -> Iterator[list[Any]]:
        """Message and result, as it grows; an error takes the place of the old result."""
        yield ["", ""]
        try:
            given, notes = given_by(pasted, file, preset)
            for table in invert(inverter, given, preset, judge):
                yield [gr.skip()] * 2 if table is None else [counter_html(table, notes), vectors_html(table)]
        except ValueError as error:
            yield failed(error)

    @guarded
    def vectors(
        pasted: str = "",
        file: dict | None = None,
        preset: str = DEFAULT_PRESET,
        judge: str = judges.default,  # type: ignore[type-arg]
    ) -> Iterator[dict]:  # type: ignore[type-arg]
        """Invert pasted vectors (JSON), or those of an uploaded file, which wins.

        The result has `rows`: row, id, text, cosine and verdict of each; `left_out`: what is wrong with the others;
        and a `warning` where the vectors are not this encoder's.
        """
        latest: dict[str, Any] = {}
        for table in invert(inverter, given_by(pasted, file, preset)[0], preset, judge):
            latest = latest if table is None else table.as_json()
            yield latest  # each second, too: gradio sees by it whether anybody listens

    _page(inverter, arrival(inverter), (pasted_bound, file_bound, judges), show)
    endpoint("vectors", vectors, pasted_bound, file_bound, PRESET, judges)


@functools.cache
def arrival(inverter: Inverter) -> str:
    """The sample vector's result, which stands there when a visitor comes; computed once."""
    given = parse_pasted(sample_vector(inverter), inverter.embedding_dim, 1)
    *_, table = filter(None, invert(inverter, given, recover_tab.ARRIVAL, inverter.judges[0]))
    return vectors_html(table)


def _page(inverter: Inverter, first: str, bounds: tuple[Text, Upload, Choice], show: Callable[..., Any]) -> None:
    """The tab's controls and events."""
    pasted_bound, file_bound, judges = bounds
    gr.Markdown(
        f"Read vectors of your own store, made by `{inverter.model.config.encoder_id}`. Nothing at hand? "
        f"[Download a sample file]({SAMPLE_URL}), or use a sample vector. Kinds of files: {', '.join(KINDS)}."
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            pasted = pasted_bound.control(sample_vector(inverter), lines=3, max_lines=3)
            sample = gr.Button("Use a sample vector", size="sm")
            file = file_bound.control(height=120, elem_id="vectors-file")
        with gr.Column(scale=2, min_width=280):
            preset = PRESET.control(gr.Radio)
            judge = judges.control(gr.Radio)
            with gr.Row(elem_classes="runs"):
                go, stop = run_buttons("Read them", "vectors")
    message = gr.HTML(elem_id="vectors-message", elem_classes="message", padding=False)
    result = gr.HTML(first, elem_id="vectors-result", elem_classes="result", padding=False)
    sample.click(lambda: (sample_vector(inverter), None), None, [pasted, file], **INSTANT)
    offer_run(go, stop, show, [pasted, file, preset, judge], (message, result), "vectors-result")
