"""The Space: watch a sentence embedding being read back.

    python space/app.py        # http://127.0.0.1:7860, from checkpoints/, without Hub or GPU

On Hugging Face it runs as it lies; `EMBINV_MODEL` names another folder or repository.
"""

import functools
import inspect
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# gradio keeps this many events for its statistics, and builds a table of all of them at each one
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
# a folder of this page's own, for old files in it are deleted
os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir()) / "embinv-space"))

import gradio as gr
import pandas as pd
import torch
from bounds import Choice, Number, Text, Upload, choice_of, number_of
from guard import MAX_UPLOAD, GuardedBlocks, app_options
from inverter import Draft, Inverter
from leaks import explanation, leaks_html, protect, summary
from redacted_html import CSS as REDACTED_CSS
from redacted_tab import redacted_tab
from render import CSS, LEGEND, draft_html, figures_html
from vectors import KINDS, parse_file, parse_pasted

from modeling_embinv.settings_embinv import FEEDBACK, SETTINGS

try:
    import spaces

    on_gpu = spaces.GPU
except ImportError:  # only ZeroGPU has it
    on_gpu = lambda function: function  # noqa: E731

HERE = Path(__file__).parent
LOCAL = HERE.parent / "checkpoints" / "embinv-minilm"
MODEL = os.environ.get("EMBINV_MODEL") or (str(LOCAL) if LOCAL.exists() else "embinv/embinv-minilm")
MAX_CHARACTERS, MAX_LINES = 600, 8
MAX_SESSIONS = 256  # visitors whose last drafts are kept
KEPT_SECONDS, SWEPT_SECONDS = 3600, 600  # how long uploads and drafts for the replay are kept; how often they go
FRAME_SECONDS = 0.12  # a pass takes less time than the eye needs
TEMPERATURES = ("the strategy's own", "0", "0.5", "0.7", "1")
EXAMPLES = [
    "The dog slept in front of the fire.",
    "We will meet at the station on Friday evening.",
    "She bought a red car in Paris last summer.",
    "My password is hidden under the keyboard.",
]
LEAKING = (
    "Maria Lopez was treated for asthma in Boston.\nThe transfer of 4,500 dollars failed on Monday.\n"
    "My son is afraid of dogs."
)

inverter = Inverter(MODEL, "cuda" if torch.cuda.is_available() else "cpu")

# the theme's own colours have a contrast of 1.9 to 3.7; these have 4.5 at least
DEEP = ("button_primary_background_fill", "checkbox_label_background_fill_selected")
READABLE = {f"{name}{mode}": "*primary_700" for name in DEEP for mode in ("", "_dark")} | {
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "block_label_background_fill_dark": "*primary_800",
    "block_label_text_color": "*primary_800",
    "block_title_text_color": "*primary_800",
    "body_text_color_subdued": "*neutral_600",
    "background_fill_primary": "*neutral_50",  # the theme's own, which `set` forgets
}
JUDGES = ("encoder", "surrogate") if inverter.model.config.surrogate_rank else ("encoder",)
BOUNDS = {
    "text": Text("Sentence", 4 * MAX_CHARACTERS),  # spaces count here; `read_text` is stricter about the rest
    "first": Text("From", 4 * MAX_CHARACTERS),
    "second": Text("To", 4 * MAX_CHARACTERS),
    "lines": Text(f"Text, up to {MAX_LINES} lines", 4 * MAX_CHARACTERS * MAX_LINES, MAX_LINES),
    "pasted": Text(f"Vector of {inverter.embedding_dim} numbers (JSON)", 400_000),
    "file": Upload(f"or a file: {', '.join(KINDS)}", KINDS),
    "row": Number("Row of the file", 0, 10_000_000, 0),
    "seed": Number("Seed", 0, 2**32 - 1, 0),
    "strategy": choice_of("strategy", () if inverter.model.config.causal_share else ("autoregressive",)),
    "num_steps": number_of("num_steps", 32),
    "guidance_scale": number_of("guidance_scale", 4, low=0, step=0.1),
    # an empty number would be shown, and sent, as 0
    "temperature": Choice("Temperature", TEMPERATURES, SETTINGS["temperature"].help),
    "remask_ratio": number_of("remask_ratio", 0.5, low=0, step=0.05),
    "num_candidates": number_of("num_candidates", 32),
    "num_corrections": number_of("num_corrections", 20),
    "feedback": Choice("Checked by", JUDGES, FEEDBACK.help),
    "num_searches": number_of("num_searches", 4),
    "index": Number("Replay: after so many passes", 0, 64, 0),
    "points": Number("Points on the way", 3, 15, 7),
    "noise": Number("Noise λ added to every number of the vector", 0, 0.1, 0, 0.005),
    "storage": Choice("Stored as", ("float32", "int8")),
    "attack": Number("Corrections by an attacker who has the encoder", 0, 20, 3),
    "example": Number("Example", 0, len(EXAMPLES) - 1, 0),
}
STRATEGIES = BOUNDS["strategy"].choices
# the controls of `generate`'s settings, in the order of the events' arguments
CONTROLS = (
    "strategy", "num_steps", "guidance_scale", "temperature", "remask_ratio", "num_candidates", "num_corrections",
    "feedback", "num_searches",
)  # fmt: skip


def readable(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Errors as one line on the page and in the API, never a stack trace. Every handler here is a generator or not."""

    @functools.wraps(handler)
    def plain(*args: Any) -> Any:
        try:
            return handler(*args)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    @functools.wraps(handler)
    def streaming(*args: Any) -> Iterator[Any]:
        try:
            yield from handler(*args)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return streaming if inspect.isgeneratorfunction(handler) else plain


def read_text(text: str) -> tuple[str, list[int], torch.Tensor]:
    """A visitor's text as the model can write it, its token ids and its vector (D)."""
    text = " ".join(text.split())
    if not text:
        raise ValueError("Type a sentence first.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"This text has {len(text)} characters; at most {MAX_CHARACTERS} are read.")
    kept, ids, was_cut = inverter.cut(text)
    if not ids:
        raise ValueError("This text has no token that the model knows.")
    if was_cut:
        gr.Warning(f"Cut to its first {inverter.max_tokens} tokens: “{kept}”")
    return kept, ids, inverter.embed([kept])[0]


def settings_of(*values: Any) -> dict[str, Any]:
    """The values of `CONTROLS` as arguments of `Inverter.drafts`."""
    settings = dict(zip(CONTROLS, values, strict=True))
    temperature = settings["temperature"]
    return settings | {"temperature": None if temperature == TEMPERATURES[0] else float(temperature)}


@readable
@on_gpu
def invert(
    text: str, seed: int, strategy: str, steps: int, guidance: float, temperature: str, remask: float, candidates: int,
    corrections: int, feedback: str = "encoder", searches: int = 1,
) -> Iterator[list[Any]]:  # fmt: skip
    """Embed a sentence and read it back, draft by draft."""
    chosen = settings_of(strategy, steps, guidance, temperature, remask, candidates, corrections, feedback, searches)
    _, ids, vector = read_text(text)
    yield from show(vector, chosen, seed, ids)


@readable
@on_gpu
def invert_vector(
    pasted: str, file: dict[str, Any] | None, row: int, seed: int, strategy: str, steps: int, guidance: float,
    temperature: str, remask: float, candidates: int, corrections: int, feedback: str = "encoder", searches: int = 1,
) -> Iterator[list[Any]]:  # fmt: skip
    """Read a pasted vector, or a row of an uploaded file, draft by draft."""
    chosen = settings_of(strategy, steps, guidance, temperature, remask, candidates, corrections, feedback, searches)
    dim = inverter.embedding_dim
    vectors = parse_file(file["path"], dim) if file else parse_pasted(pasted, dim)
    if row not in vectors:
        last = max(vectors)
        raise ValueError(f"There is no vector in row {row}: {len(vectors)} lie in rows {min(vectors)} to {last}.")
    if mismatch := inverter.model.mismatch(vectors[row][None]):
        gr.Warning(mismatch)
    yield from show(vectors[row], chosen, seed)


def show(
    vector: torch.Tensor, settings: dict[str, Any], seed: int, ids: list[int] | None = None
) -> Iterator[list[Any]]:
    """Yields (draft, recovered text, figures, all steps so far as JSON, the drafts for the replay, at the end)."""
    drafts = []
    for item in inverter.drafts(vector, seed, **settings):
        if item is None:
            yield [gr.skip()] * 5
        elif isinstance(item, Draft):
            drafts.append(item)
            yield [draft_html(item), "", "", [draft.as_json() for draft in drafts], gr.skip()]
            time.sleep(FRAME_SECONDS)
        else:
            result = item
    if ids is not None:
        result.accuracy = inverter.accuracy(ids, result.ids)
    steps = [draft.as_json() for draft in drafts]
    yield [draft_html(drafts[-1]), result.text, figures_html(result), steps, drafts]


@functools.cache
def arrival() -> list:
    """The first example's result, with the standard settings, which stands there when a visitor comes."""
    standard = [BOUNDS["seed"].default, *(BOUNDS[name].check(None) for name in CONTROLS)]
    *_, last = invert(EXAMPLES[0], *standard)
    return last[:4]


def replay(drafts: list[Draft], index: int) -> str:
    """The draft after `index` passes of the visitor's last text, which the server has kept."""
    return draft_html(drafts[min(index, len(drafts) - 1)]) if drafts else ""


def replay_range(drafts: list[Draft]) -> gr.Slider:
    """The slider over these drafts, at their end."""
    last = max(len(drafts) - 1, 0)
    return gr.Slider(maximum=max(last, 1), value=last, interactive=last > 0)


@readable
@on_gpu
def compare(text: str, steps: int, seed: int) -> tuple[list[list[Any]], pd.DataFrame, pd.DataFrame]:
    """All strategies on one sentence: a table, and cosine and accuracy after each pass."""
    _, ids, vector = read_text(text)
    rows, curves = [], []
    for strategy in STRATEGIES:
        start = time.perf_counter()
        output = inverter.generate(vector[None], seed, strategy=strategy, num_steps=steps, return_history=True)
        milliseconds = 1000 * (time.perf_counter() - start)
        texts = inverter.decode(torch.cat(output.history))
        cosines = (inverter.embed(texts) @ vector).tolist()
        accuracies = [inverter.accuracy(ids, draft[0].tolist()) for draft in output.history]
        rows.append(
            [strategy, texts[-1], round(cosines[-1], 3), round(100 * accuracies[-1]), len(texts), round(milliseconds)]
        )
        for number, (cosine, accuracy) in enumerate(zip(cosines, accuracies, strict=True), start=1):
            curves.append(
                {"pass": number, "strategy": strategy, "cosine": cosine, "tokens in place %": 100 * accuracy}
            )
    return rows, pd.DataFrame(curves), pd.DataFrame(curves)


@readable
@on_gpu
def mix(first: str, second: str, points: int) -> list[list[Any]]:
    """Texts on the way from one sentence's vector to another's, on the great circle between them."""
    (_, _, start), (_, _, stop) = read_text(first), read_text(second)
    angle = torch.arccos((start @ stop).clamp(-1, 1))
    if angle < 1e-3:
        raise ValueError("These two sentences have the same vector; choose two that differ.")
    shares = torch.linspace(0, 1, points)[:, None]
    between = (torch.sin((1 - shares) * angle) * start + torch.sin(shares * angle) * stop) / torch.sin(angle)
    texts = inverter.decode(inverter.generate(between).sequences)
    vectors = inverter.embed(texts)
    columns = zip(shares[:, 0].tolist(), texts, (vectors @ start).tolist(), (vectors @ stop).tolist(), strict=True)
    return [[f"{share:.0%}", text, round(near, 2), round(far, 2)] for share, text, near, far in columns]


@readable
@on_gpu
def leak(text: str, noise: float, storage: str, corrections: int) -> tuple[str, list[list[Any]], str]:
    """Which content words of each line survive inversion of its stored vector."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("Paste a line of text first.")
    vectors = torch.stack([read_text(line)[2] for line in lines])
    stored = protect(vectors, noise, storage == "int8")
    # narrower than usual: many lines, and somebody waits
    narrow = dict(feedback="encoder", num_candidates=8, num_beams=2, num_proposals=16)
    loop = dict(num_corrections=corrections, **narrow) if corrections else {}
    recovered = inverter.decode(inverter.generate(stored, **loop).sequences)
    rows = summary(lines, recovered)
    cosine = float((stored * vectors).sum(dim=1).mean())
    return leaks_html(lines, recovered), rows, explanation(rows, cosine)


def controls() -> list[gr.components.Component]:
    """The sampler's settings, folded away."""
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            made = {name: BOUNDS[name].control() for name in CONTROLS[:3]}
        with gr.Row():
            made |= {name: BOUNDS[name].control() for name in CONTROLS[3:5]}
            seed = BOUNDS["seed"].box()
        with gr.Row():
            made |= {name: BOUNDS[name].control() for name in CONTROLS[5:7]}
            made["feedback"] = BOUNDS["feedback"].control(gr.Radio)
            made["num_searches"] = BOUNDS["num_searches"].control()
    return [seed, *(made[name] for name in CONTROLS)]


def examples(text: gr.Textbox, standard: list[Any], outputs: list[Any], shown: dict[str, Any]) -> None:
    """Sentences to click on; the first click's drafts are kept for all visitors."""
    kept = {}

    @readable
    def invert_example(text: str) -> Iterator[list[Any]]:
        if text not in kept:
            frames = []
            for frame in invert(text, *standard):
                frames.append(frame)
                yield frame
            if text in EXAMPLES:
                kept[text] = frames
            return
        for frame in kept[text]:
            yield frame
            time.sleep(FRAME_SECONDS)

    offered = gr.Examples(
        EXAMPLES, text, label="Examples, with the standard settings", cache_examples=False, api_visibility="private"
    )
    BOUNDS["example"].bind(offered.dataset)
    clicked = offered.load_input_event.then(invert_example, text, outputs, api_visibility="private")
    clicked.then(**shown)


def invert_tab() -> None:
    """Type, paste or upload; watch; replay."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2):
            with gr.Tab("A sentence") as sentence:
                text = BOUNDS["text"].control(EXAMPLES[0], lines=2, max_length=4 * MAX_CHARACTERS)
                go = gr.Button("Embed it and read it back", variant="primary")
            with gr.Tab("A vector"):
                pasted = BOUNDS["pasted"].control(lines=3, max_lines=6)
                file = BOUNDS["file"].control(height=120)
                row = BOUNDS["row"].box()
                go_vector = gr.Button("Read it", variant="primary")
            chosen = controls()
        with gr.Column(scale=3):
            draft_of_first, text_of_first, figures_of_first, steps_of_first = arrival()
            draft = gr.HTML(draft_of_first, label="Draft")
            gr.HTML(LEGEND)
            slider = BOUNDS["index"].control(interactive=False)
            recovered = gr.Textbox(text_of_first, label="Recovered text", interactive=False)
            figures = gr.HTML(figures_of_first)
            with gr.Accordion("All steps as JSON", open=False):
                steps = gr.JSON(steps_of_first, show_label=False)
    drafts = gr.State([], time_to_live=KEPT_SECONDS)
    outputs = [draft, recovered, figures, steps, drafts]
    hidden = dict(api_visibility="private", queue=False, show_progress="hidden")
    shown = dict(fn=replay_range, inputs=drafts, outputs=slider, **hidden)
    gr.on([go.click, text.submit], invert, [text, *chosen], outputs, api_name="invert").then(**shown)
    inputs = [pasted, file, row, *chosen]
    # gradio's own preprocessing would leave an empty file behind for each request
    go_vector.click(invert_vector, inputs, outputs, api_name="invert_vector", preprocess=False).then(**shown)
    with sentence:
        examples(text, [control.value for control in chosen], outputs, shown)
    slider.input(replay, [drafts, slider], draft, api_name="replay", queue=False)


def compare_tab() -> None:
    """Five strategies side by side."""
    with gr.Row():
        text = BOUNDS["text"].control(EXAMPLES[1], scale=3)
        steps = BOUNDS["num_steps"].control()
        seed = BOUNDS["seed"].box()
    go = gr.Button("Compare", variant="primary")
    columns = ["strategy", "recovered", "cosine", "tokens in place %", "passes", "ms"]
    table = gr.Dataframe(headers=columns, wrap=True, interactive=False, column_widths=["15%", "45%"])
    with gr.Row():
        cosine = gr.LinePlot(x="pass", y="cosine", color="strategy", title="Cosine with the vector", y_lim=[0, 1])
        accuracy = gr.LinePlot(
            x="pass", y="tokens in place %", color="strategy", title="Tokens in place", y_lim=[0, 100]
        )
    go.click(compare, [text, steps, seed], [table, cosine, accuracy], api_name="compare")


def mix_tab() -> None:
    """Between two sentences."""
    with gr.Row():
        first = BOUNDS["first"].control("The dog slept in front of the fire.")
        second = BOUNDS["second"].control("The train leaves at seven in the morning.")
    points = BOUNDS["points"].control()
    go = gr.Button("Mix", variant="primary")
    columns = ["share of the second", "text read at that point", "cosine with the first", "with the second"]
    table = gr.Dataframe(headers=columns, wrap=True, interactive=False)
    go.click(mix, [first, second, points], table, api_name="mix")


def leaks_tab() -> None:
    """Names, numbers and other words that survive."""
    text = BOUNDS["lines"].control(LEAKING, lines=4, max_lines=MAX_LINES)
    with gr.Row():
        noise = BOUNDS["noise"].control()
        storage = BOUNDS["storage"].control(gr.Radio)
        corrections = BOUNDS["attack"].control()
    go = gr.Button("What leaks?", variant="primary")
    marked, told = gr.HTML(), gr.Markdown()
    table = gr.Dataframe(headers=["kind", "in the text", "survived", "share"], interactive=False)
    outputs, inputs = [marked, table, told], [text, noise, storage, corrections]
    go.click(leak, inputs, outputs, api_name="leaks")
    gr.on([noise.release, storage.change, corrections.release], leak, inputs, outputs, api_visibility="private")


def build() -> gr.Blocks:
    """The page."""
    deleting = dict(delete_cache=(SWEPT_SECONDS, KEPT_SECONDS))
    with GuardedBlocks(title="EmbInv", analytics_enabled=False, **deleting) as page:
        gr.Markdown(
            "# EmbInv: what an embedding says\nSearch indexes, backups and logs keep vectors of texts, as if nobody "
            "could read them. A masked diffusion model brings the words back."
        )
        for name, tab in (
            ("Redacted", lambda: redacted_tab(inverter, JUDGES[::-1], lambda handler: readable(on_gpu(handler)))),
            ("Recover", invert_tab),
            ("Compare", compare_tab),
            ("Mix", mix_tab),
            ("What leaks", leaks_tab),
        ):
            with gr.Tab(name):
                tab()
        gr.Markdown(
            f"Reads vectors of `{inverter.model.config.encoder_id}`, texts of up to {inverter.max_tokens} tokens. For "
            "auditing vectors that you are allowed to read."
        )
    page.queue(max_size=128, default_concurrency_limit=2)
    return page


def launch(**options: Any) -> Any:
    """Start the page; fonts and everything else come from this server."""
    theme = gr.themes.Soft(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(**READABLE)
    inside = app_options(SWEPT_SECONDS, KEPT_SECONDS)
    limits = dict(max_file_size=MAX_UPLOAD, state_session_capacity=MAX_SESSIONS, app_kwargs=inside)
    return build().launch(
        theme=theme, css=CSS + REDACTED_CSS, ssr_mode=False, enable_monitoring=False, **limits, **options
    )


if __name__ == "__main__":
    launch()
