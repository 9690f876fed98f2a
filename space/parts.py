"""What all tabs share: messages beside the input, verdicts, tables and bars as HTML, and the ways of their events."""

import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import gradio as gr
from bounds import Bound
from gradio.context import get_blocks_context
from streaming import TookTooLong

# of events that answer at once
INSTANT: dict[str, Any] = dict(api_visibility="private", queue=False, show_progress="hidden")
# of events that the model works for: they wait in one queue, and the wait is told beside the input
_QUEUED: dict[str, Any] = dict(api_visibility="private", preprocess=False, concurrency_id="model", concurrency_limit=2)
LINE = 64  # pixels above a result that a phone leaves in view
# what the two judges are, beside the choice between them
JUDGES = "what ranks the texts that are tried: the model's own copy of the encoder, or the encoder itself"
_STOPPED = '<p class="note stopped">Stopped.</p>'
_UNCHANGED = {"__type__": "update"}  # of a component, in what JavaScript returns
# the least confidence of each tint; the underline says the same without colour
TINTS = ((0.75, "p3"), (0.25, "p2"), (0.0, "p1"))
TINT_LEGEND = (
    '<p class="legend">The model’s confidence: <mark class="p3">75 % and more</mark> '
    '<mark class="p2">25 % and more</mark> <mark class="p1">less</mark></p>'
)
# new parts of the page are read aloud, and nothing else is; a link that is opened in this tab loads the page again
LIVE = """() => {
  const mark = () => document.querySelectorAll(".message:not(.block):not([aria-live])").forEach(
    part => part.setAttribute("aria-live", "polite")
  );
  // a browser loads nothing anew where the part behind the # alone differs; "Copy link" fires no such event
  window.addEventListener("hashchange", () => window.location.reload());
  mark();  // the other tabs come into the page when they are opened
  new MutationObserver(mark).observe(document.body, { childList: true, subtree: true });
}"""


def run_buttons(verb: str, name: str) -> tuple[gr.Button, gr.Button]:
    """The buttons for `offer_run`, to be placed in a row of the tab; their ids are NAME-go and NAME-stop."""
    go = gr.Button(verb, variant="primary", min_width=120, elem_id=f"{name}-go")
    return go, gr.Button("Stop", min_width=80, scale=0, interactive=False, elem_id=f"{name}-stop")


def offer_run(
    go: gr.Button, stop: gr.Button, show: Callable[..., Any], inputs: Sequence[Any], shown: tuple[gr.HTML, gr.HTML],
    place: str, *triggers: Any,
) -> None:  # fmt: skip
    """Let one button start a run and the other stop it; each is off while it could do nothing.

    Args:
        show: the handler, and inputs: its controls.
        shown: the message and the result.
        place: the id of what a phone goes to.
        triggers: what starts a run besides the button. During a run of other inputs they stop it and start anew.
    """
    starts, parts = [go.click, *triggers], [go, stop, shown[0]]
    gr.on(starts, None, inputs, parts, js=_started(go, stop), **INSTANT)
    run = gr.on(
        starts, show, inputs, [*shown],
        show_progress="minimal", show_progress_on=shown[0], js=_to_result(place), **_QUEUED,
    )  # fmt: skip
    # what the run had sent before may still arrive, so "Stopped." is said when it has ended
    stop.click(None, cancels=[run], js=f"() => {{ ({_state(go)}).isStopped = true; }}", **INSTANT)
    for ended in (run.then, run.failure):  # `then` follows an end and a stop, not an error
        ended(None, None, parts, js=_ended(go, shown[0]), **INSTANT)


def _state(go: gr.Button) -> str:
    """In JavaScript, what is known of the button's run.

    asked: its inputs, while it runs. isStopped: Stop was pressed. isNext: another run waits for its end.
    """
    return f"window[{json.dumps(f'run of {go.elem_id}')}] ??= {{}}"


def _switches(is_running: bool) -> str:
    """The buttons of a run and its Stop, on or off, for a list in JavaScript."""
    return ", ".join(json.dumps(_UNCHANGED | {"interactive": is_on}) for is_on in (not is_running, is_running))


def _started(go: gr.Button, stop: gr.Button) -> str:
    """JavaScript at what starts a run, which has no message yet; gradio itself drops it where one is under way."""
    return f"""(...given) => {{
  const run = {_state(go)}, asked = JSON.stringify(given), isUnderWay = "asked" in run;
  if (isUnderWay && run.asked !== asked) {{
    run.isNext = true;
    document.querySelector("#{stop.elem_id}").click();
  }}
  if (isUnderWay) return Array(3).fill({json.dumps(_UNCHANGED)});
  run.asked = asked;
  return [{_switches(is_running=True)}, ""];
}}"""


def _ended(go: gr.Button, message: gr.HTML) -> str:
    """JavaScript at the end of a run: the next one starts, else that of a stopped one is told behind its notes."""
    return f"""() => {{
  const run = {_state(go)}, {{ isStopped, isNext }} = run, button = document.querySelector("#{go.elem_id}");
  for (const name of ["asked", "isStopped", "isNext"]) delete run[name];
  const press = () => button.disabled ? setTimeout(press, 50) : button.click();
  if (isNext) press();
  const notes = [...document.querySelectorAll("#{message.elem_id} .note")].map(note => note.outerHTML);
  const told = isStopped && !isNext ? notes.join("") + {json.dumps(_STOPPED)} : {json.dumps(_UNCHANGED)};
  return [{_switches(is_running=False)}, told];
}}"""


def _to_result(name: str) -> str:
    """JavaScript before an event: on a phone, go to the part of this id, and hand the arguments on.

    The line above it stays in view, for it tells one's place in the queue. Not smoothly, and a little later: new
    content would end a scrolling that is under way.
    """
    return f"""(...given) => {{
  const scroll = () => {{ document.querySelector("#{name}").scrollIntoView(); window.scrollBy(0, -{LINE}); }};
  if (window.innerWidth < 700) setTimeout(scroll, 400);
  return given;
}}"""


def tint_of(confidence: float) -> str:
    """The class of a confidence in [0, 1]."""
    return next((name for least, name in TINTS if confidence >= least), TINTS[-1][1])


def percent(probability: float) -> str:
    """A probability in words that never say 0 or 100 of what is not sure."""
    if probability <= 0.005:
        return "< 1 %"
    return "> 99 %" if probability >= 0.995 else f"{probability:.0%}".replace("%", " %")


def refused_html(error: object) -> str:
    """An error, beside the input."""
    return f'<p class="refused" role="alert">{escape(str(error))}</p>'


def failed(error: ValueError, notes: str = "", said: str | None = None) -> list[Any]:
    """The message and the result after an error: what a run has found before its time was over stays.

    Args:
        notes: HTML that stands before the error.
        said: the error in words for a visitor; None = its own.
    """
    message = notes + refused_html(error if said is None else said)
    return [message, gr.skip() if isinstance(error, TookTooLong) else ""]


def notes_html(notes: Iterable[str]) -> str:
    """Lines that a visitor should know, beside the input."""
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def done_html(said: str = "The result stands below.") -> str:
    """For those who hear the page, that a run has ended, and what came of it."""
    return f'<p class="heard">Done. {escape(said)}</p>'


def climb_html(cosines: Sequence[float]) -> str:
    """The cosine after each step, as bars with their figures."""
    bars = "".join(f'<li><i style="height: {max(cosine, 0) * 2.4:.2f}rem"></i>{cosine:.3f}</li>' for cosine in cosines)
    return f"<ol class='climb'>{bars}</ol>"


def table_html(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], widths: str = "") -> str:
    """A table; on a phone its rows are cards, with the column's name before each value.

    Args:
        caption: its name, for those who hear the page.
        columns: their headings.
        rows: of cells that are HTML already.
        widths: a class of the table.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = (
        "".join(f'<td data-name="{escape(name)}">{cell}</td>' for name, cell in zip(columns, row, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table {widths}">{table}</div>'


def endpoint(name: str, function: Callable[..., Any], *bounds: Bound) -> None:
    """Give the page an endpoint of this name, which runs the function once these bounds have checked its arguments."""
    options: dict[str, Any] = dict(concurrency_id="model", concurrency_limit=2)
    gr.api(function, api_name=name, api_description=function.__doc__, **options)
    page = get_blocks_context()
    assert page is not None  # the tab is made inside the page
    (event,) = (one for one in page.fns.values() if one.api_name == name)
    for component, bound in zip(event.inputs, bounds, strict=True):
        bound.bind(component)
