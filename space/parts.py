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
# gradio tells a cancelled run's end three times: as its own end or failure, and as both once the server has answered
ENDS_OF_CANCELLED = 3
PATIENCE = 20_000  # milliseconds for all three; a run that ended by itself as it was cancelled tells its own alone
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
    parts = [go, stop, shown[0]]
    # gradio would start and cancel by its own notion of what is under way: the page presses these two when it is time
    start, cancel = (gr.Button(visible="hidden", elem_id=f"{go.elem_id}-{name}") for name in ("start", "cancel"))
    gr.on([go.click, *triggers], None, inputs, parts, js=_asked(go, start, cancel), **INSTANT)
    run = start.click(
        show, inputs, [*shown],
        show_progress="minimal", show_progress_on=shown[0], js=_sent(go, place), **_QUEUED,
    )  # fmt: skip
    stop.click(None, js=f"() => {{ const run = {_run_of(go)}; {_halt(go, cancel)} }}", **INSTANT)
    cancel.click(None, cancels=[run], **INSTANT)
    for ended in (run.then, run.failure):
        ended(None, None, parts, js=_ended(go, shown[0]), **INSTANT)


def _run_of(go: gr.Button) -> str:
    """In JavaScript, what is known of the button's run; undefined where there is none.

    asked: its inputs. isSent: to the server. isCancelled: gradio was told to stop it. numEnds: how often its end has
    been told since. isNext: one more waits for its end.
    """
    return f"window[{json.dumps(f'run of {go.elem_id}')}]"


def _switches(is_running: bool) -> str:
    """The buttons of a run and its Stop, on or off, for a list in JavaScript."""
    return ", ".join(json.dumps(_UNCHANGED | {"interactive": is_on}) for is_on in (not is_running, is_running))


def _asked(go: gr.Button, start: gr.Button, cancel: gr.Button) -> str:
    """JavaScript where a run is asked for: it starts, at once or when that of other inputs has been stopped."""
    return f"""(...given) => {{
  const run = {_run_of(go)}, asked = JSON.stringify(given);
  if (run && run.asked !== asked) {{
    run.isNext = true;
    {_halt(go, cancel)}
  }}
  if (run) return Array(3).fill({json.dumps(_UNCHANGED)});
  {_run_of(go)} = {{ asked }};
  document.querySelector("#{start.elem_id}").click();
  return [{_switches(is_running=True)}, ""];
}}"""


def _halt(go: gr.Button, cancel: gr.Button) -> str:
    """JavaScript that cancels `run`, once, and not before gradio has sent it: it would forget the press."""
    return f"""(function press() {{
    if (!run || run.isCancelled || run !== {_run_of(go)}) return;
    if (!run.isSent) return setTimeout(press, 50);
    run.isCancelled = true;
    document.querySelector("#{cancel.elem_id}").click();
  }})();"""


def _ended(go: gr.Button, message: gr.HTML) -> str:
    """JavaScript at the end of a run: the next one starts, else that of a stopped one is told behind its notes.

    gradio does not say which run has ended. So the next one starts only when a cancelled one's end is told no more.
    """
    return f"""async () => {{
  const run = {_run_of(go)}, unchanged = {json.dumps(_UNCHANGED)};
  if (run?.isCancelled) {{
    run.numEnds = (run.numEnds ?? 0) + 1;
    if (run.numEnds < {ENDS_OF_CANCELLED}) await new Promise(goOn => setTimeout(goOn, {PATIENCE}));
  }}
  if (!run || run !== {_run_of(go)}) return Array(3).fill(unchanged);
  delete {_run_of(go)};
  const {{ isCancelled, isNext }} = run, button = document.querySelector("#{go.elem_id}");
  const press = () => button.disabled ? setTimeout(press, 50) : button.click();
  if (isNext) press();
  const notes = [...document.querySelectorAll("#{message.elem_id} .note")].map(note => note.outerHTML);
  const told = isCancelled && !isNext ? notes.join("") + {json.dumps(_STOPPED)} : unchanged;
  return [{_switches(is_running=False)}, told];
}}"""


def _sent(go: gr.Button, place: str) -> str:
    """JavaScript before a run is sent: on a phone, go to the part of this id, and hand the arguments on.

    The line above it stays in view, for it tells one's place in the queue. Not smoothly, and a little later: new
    content would end a scrolling that is under way.
    """
    return f"""(...given) => {{
  const run = {_run_of(go)};
  const scroll = () => {{ document.querySelector("#{place}").scrollIntoView(); window.scrollBy(0, -{LINE}); }};
  setTimeout(() => {{ run.isSent = true; }});
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
