"""The tab "Recover": type a sentence, and watch it come back from its vector."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from bounds import Choice, Text
from inverter import Inverter
from links import link_button, offer_link
from parts import INSTANT, JUDGES, done_html, endpoint, failed, notes_html, offer_run, run_buttons
from recover import recover
from recover_html import recovery_html, said

from modeling_embinv.presets_embinv import DEFAULT_PRESET, PRESETS

FRAME_SECONDS = 0.08  # of a pass of the draft, which takes less time than the eye needs
MAX_CHARACTERS = 20_000  # the model reads the first tokens of a longer text, and says so
EXAMPLES = (
    ("Password", "My password is hidden under the keyboard."),
    ("Diagnosis", "Maria Lopez was treated for asthma in Boston."),
    ("Meeting", "We will meet at the station on Friday evening."),
    ("Car", "She bought a red car in Paris last summer."),
)
ARRIVAL = DEFAULT_PRESET  # of the results that stand there when a visitor comes
TEXT = Text("Sentence", MAX_CHARACTERS)
PRESET = Choice(
    "Search",
    tuple(PRESETS),
    "quick writes one text and does not search; standard searches for seconds; thorough searches longer, finds more",
    DEFAULT_PRESET,
)


@functools.cache
def arrival(inverter: Inverter) -> str:
    """The result of the first example, which stands there when a visitor comes; computed once."""
    *_, recovery = filter(None, recover(inverter, EXAMPLES[0][1], ARRIVAL, inverter.judges[0]))
    return recovery_html(recovery)


def recover_tab(inverter: Inverter, guarded: Callable[..., Any]) -> None:
    """Type, recover, replay.

    Args:
        guarded: makes a handler of the page from a function: its errors are one line.
    """
    judges = Choice("Judged by", inverter.judges, JUDGES)

    @guarded
    def show(text: str, preset: str, judge: str) -> Iterator[list[Any]]:
        """Message and result, as it grows; an error takes the place of the old result."""
        yield ["", ""]
        try:
            for recovery in recover(inverter, text, preset, judge):
                if recovery is None:
                    yield [gr.skip(), gr.skip()]
                    continue
                done = "" if recovery.result is None else done_html(said(recovery))
                yield [notes_html(recovery.original.notes) + done, recovery_html(recovery)]
                if not recovery.rounds:
                    time.sleep(FRAME_SECONDS)  # the model works on meanwhile
        except ValueError as error:
            yield failed(error)

    @guarded
    def recovered(text: str, preset: str = DEFAULT_PRESET, judge: str = judges.default) -> Iterator[dict]:  # type: ignore[type-arg]
        """Embed a text and recover it from its vector, step by step.

        The result has text, cosine, verdict, content_words and words_recovered, calls and seconds, and `steps`: each
        pass of the first draft and each round of the search, with its label, pieces and cosine.
        """
        latest: dict[str, Any] = {}
        for recovery in recover(inverter, text, preset, judge):
            latest = latest if recovery is None else recovery.as_json()
            yield latest  # each second, too: gradio sees by it whether anybody listens

    _page(arrival(inverter), judges, show)
    endpoint("recover", recovered, TEXT, PRESET, judges)


def _page(first: str, judges: Choice, show: Callable[..., Any]) -> None:
    """The tab's controls and events."""
    gr.Markdown("The page embeds a sentence; the attack is given **the vector**, nothing else.")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            text = TEXT.control(EXAMPLES[0][1], max_lines=3)
            with gr.Row(elem_classes="samples"):
                samples = [gr.Button(name, size="sm", min_width=60) for name, _ in EXAMPLES]
            with gr.Row(elem_classes="runs"):
                go, stop = run_buttons("Recover it", "recover")
                link = link_button()
        with gr.Column(scale=2, min_width=280):
            preset = PRESET.control(gr.Radio)
            judge = judges.control(gr.Radio)
    message = gr.HTML(elem_id="recover-message", elem_classes="message", padding=False)
    result = gr.HTML(first, elem_id="recover-result", elem_classes="result", padding=False)
    for button, (_, sentence) in zip(samples, EXAMPLES, strict=True):
        button.click(functools.partial(str, sentence), None, text, **INSTANT)
    offer_run(go, stop, show, [text, preset, judge], (message, result), "recover-result", text.submit)
    offer_link(link, "Recover", {"text": text, "preset": preset, "judge": judge}, message, go="recover-go")
