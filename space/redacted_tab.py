"""The tab "Redacted": click the words to hide, and watch them come back by the vector."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from bounds import Bound, Choice, Text
from inverter import Inverter
from links import link_button, offer_link
from parts import INSTANT, JUDGES, done_html, endpoint, failed, notes_html, offer_run, refused_html, run_buttons
from redacted import attack, followed, notes_of_redacting, redact, tidy, words_of
from redacted_html import both_html, holds_html, said

MAX_CHARACTERS = 600
# buttons' names, sentences, and the words that are hidden in them
EXAMPLES = (
    ("Diagnosis", "Maria Lopez was treated for asthma in Boston.", ("asthma", "Boston")),
    ("Medicine", "The patient has a history of diabetes and takes insulin.", ("diabetes", "insulin")),
    ("Password", "My password is hidden under the keyboard.", ("keyboard",)),
    ("Letter", "Dear Peter, your loan of 4,500 dollars is approved.", ("Peter", "4,500")),
)


@dataclass(frozen=True)
class Keys(Bound):
    """Words of a sentence, see `redacted.Word.key`; an empty value is none."""

    label: str

    def check(self, value: Any) -> list[str]:
        """The keys.

        Raises:
            ValueError: for anything but a list of as many short texts as a sentence may have words.
        """
        if value is None:
            return []
        fits = isinstance(value, list) and len(value) <= MAX_CHARACTERS
        if not fits or not all(isinstance(key, str) and len(key) <= MAX_CHARACTERS for key in value):
            raise ValueError(f"{self.label}: give a list of words.")
        return value


TEXT, KEYS = Text("Text to redact", MAX_CHARACTERS), Keys("Words to hide")


@functools.cache
def arrival(inverter: Inverter) -> str:
    """The result of the first example, which stands there when a visitor comes; computed once."""
    *_, both = filter(None, attack(inverter, *EXAMPLES[0][1:], inverter.judges[0]))
    return both_html(both)


def choose(text: str | ValueError, keys: Sequence[str], old: str | None = None) -> tuple[Any, str, str | None]:
    """The words of a text to click on, those hidden that were, what the attacker holds, and the text.

    Args:
        text: or the error that says why it is not read.
        old: the text whose words stood there; None = this one. Keys that are none of its words are this text's: a link
            brought both.
    """
    if isinstance(text, ValueError):
        return gr.CheckboxGroup(choices=[], value=[]), *held(text, [], None)
    text = tidy(text)
    choices = [(word.text, word.key) for word in words_of(text)]
    is_old = old is not None and set(keys) <= {word.key for word in words_of(old)}
    kept = followed(old, text, keys) if is_old else present(text, keys)
    return gr.CheckboxGroup(choices=choices, value=kept), *held(text, kept, text)


def held(text: str | ValueError, keys: Sequence[str], known: str | None) -> tuple[str, str | None]:
    """What the attacker holds, or the error that says why a text is not read; and the text whose words are known.

    That one stays, since a visitor may have typed on before the words of the text come.
    """
    if isinstance(text, ValueError):
        return refused_html(text), known
    text = tidy(text)
    return holds_html(redact(text, keys)), known


def present(text: str, keys: Sequence[str]) -> list[str]:
    """Those of the keys that a text has."""
    return [word.key for word in words_of(tidy(text)) if word.key in keys]


def redacted_tab(inverter: Inverter, guarded: Callable[..., Any]) -> None:
    """Type, hide, fill; the control beside it.

    Args:
        guarded: makes a handler of the page from a function: its errors are one line.
    """
    judges = Choice("Judged by", inverter.judges, JUDGES)

    @guarded
    def show(text: str, hidden: list[str], judge: str) -> Iterator[list[Any]]:
        """Message and both attacks, as they grow; an error takes the place of the old result."""
        notes = notes_html(notes_of_redacting(tidy(text)))
        yield [notes, ""]
        try:
            # on a slow line the boxes may still be those of the text before
            for both in attack(inverter, text, present(text, hidden), judge):
                if both is None:
                    yield [gr.skip(), gr.skip()]
                    continue
                yield [notes + done_html(said(both)) if both.is_done else gr.skip(), both_html(both)]
        except ValueError as error:
            yield failed(error, notes)

    @guarded
    def redacted(text: str, hidden: list[str], judge: str = judges.default) -> Iterator[dict]:  # type: ignore[type-arg]
        """Hide words of a text and fill the gaps by its vector, and by another sentence's.

        hidden: the words; the second "the" of a text is "the (2)". The result has `own` and `control`: text, gaps
        with probabilities and runners-up, cosine, verdict, calls and seconds, as far as the search has come.
        """
        latest: dict[str, Any] = {}
        for both in attack(inverter, text, hidden, judge):
            latest = latest if both is None else both.as_json()
            yield latest  # each second, too: gradio sees by it whether anybody listens

    _page(arrival(inverter), judges, show)
    endpoint("redacted", redacted, TEXT, KEYS, judges)


def _page(first: str, judges: Choice, show: Callable[..., Any]) -> None:
    """The tab's controls and events."""
    _, sentence, hidden = EXAMPLES[0]
    gr.Markdown(
        "Hide words of a sentence. The page embeds the **whole** sentence; the attack is given the **redacted** text "
        "and that vector, nothing else."
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            text = TEXT.control(sentence, max_lines=3)
            choices = [(word.text, word.key) for word in words_of(sentence)]
            words = gr.CheckboxGroup(
                choices, value=list(hidden), label="Words to hide: click them", elem_classes="words"
            )
            KEYS.bind(words)
        with gr.Column(scale=2, min_width=280):
            judge = judges.control(gr.Radio)
            with gr.Row(elem_classes="runs"):
                go, stop = run_buttons("Fill the gaps", "redacted")
                link = link_button()
            with gr.Row(elem_classes="samples"):
                samples = [gr.Button(name, size="sm", min_width=60) for name, *_ in EXAMPLES]
    holds = gr.HTML(holds_html(redact(sentence, hidden)), elem_id="redacted-holds", padding=False)
    message = gr.HTML(elem_id="redacted-message", elem_classes="message", padding=False)
    result = gr.HTML(first, elem_id="redacted-result", elem_classes="result", padding=False)
    known = gr.State(sentence)  # the text whose words stand there
    text.change(choose, [text, words, known], [words, holds, known], preprocess=False, **INSTANT)
    # the words' own boxes stay as they are: an answer would undo a click that came after its question
    words.change(held, [text, words, known], [holds, known], preprocess=False, **INSTANT)
    for button, example in zip(samples, EXAMPLES, strict=True):
        button.click(functools.partial(_sample, *example[1:]), None, [text, words, holds, known], **INSTANT)
    offer_run(go, stop, show, [text, words, judge], (message, result), "redacted-holds", text.submit)
    offer_link(link, "Redacted", {"text": text, "hidden": words, "judge": judge}, message, go="redacted-go")


def _sample(text: str, hidden: tuple[str, ...]) -> tuple[str, Any, str, str | None]:
    """An example in the controls."""
    return text, *choose(text, hidden)
