"""The Space: watch a sentence embedding being read back.

    python space/app.py        # http://127.0.0.1:7860, from checkpoints/, without Hub or GPU

On Hugging Face it runs as it lies; `EMBINV_MODEL` names another folder or repository.
"""

import functools
import inspect
import os
import time
from pathlib import Path

import gradio as gr
import pandas as pd
import torch
from inverter import STRATEGIES, Draft, Inverter
from leaks import explanation, leaks_html, protect, summary
from render import CSS, LEGEND, draft_html, figures_html
from vectors import KINDS, parse_file, parse_pasted

try:
    import spaces

    on_gpu = spaces.GPU
except ImportError:  # only ZeroGPU has it
    on_gpu = lambda function: function  # noqa: E731

HERE = Path(__file__).parent
LOCAL = HERE.parent / "checkpoints" / "embinv-minilm"
MODEL = os.environ.get("EMBINV_MODEL") or (str(LOCAL) if LOCAL.exists() else "embinv/embinv-minilm")
MAX_CHARACTERS, MAX_LINES = 600, 8
FRAME_SECONDS = 0.12  # a pass takes less time than the eye needs
TEMPERATURES = ["the strategy's own", "0", "0.5", "0.7", "1"]
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


def readable(handler):
    """Errors as one line on the page and in the API, never a stack trace. Every handler here is a generator or not."""

    @functools.wraps(handler)
    def plain(*args):
        try:
            return handler(*args)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    @functools.wraps(handler)
    def streaming(*args):
        try:
            yield from handler(*args)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return streaming if inspect.isgeneratorfunction(handler) else plain


def read_text(text: str) -> tuple[str, list[int], torch.Tensor]:
    """A visitor's text as the model can write it, its token ids and its vector (D)."""
    text = " ".join((text or "").split())
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


def settings_of(strategy, steps, guidance, temperature, remask, candidates, corrections, feedback, searches) -> dict:
    """The controls as arguments of `Inverter.drafts`."""
    temperature = None if temperature in (None, TEMPERATURES[0]) else float(temperature)
    sampler = dict(strategy=strategy, num_steps=int(steps), guidance_scale=guidance, temperature=temperature)
    loop = dict(candidates=int(candidates), corrections=int(corrections), feedback=feedback, searches=int(searches))
    return sampler | dict(remask_ratio=remask) | loop


@readable
@on_gpu
def invert(
    text, seed, strategy, steps, guidance, temperature, remask, candidates, corrections, feedback="encoder", searches=1
):
    """Embed a sentence and read it back, draft by draft."""
    chosen = settings_of(strategy, steps, guidance, temperature, remask, candidates, corrections, feedback, searches)
    kept, ids, vector = read_text(text)
    yield from show(vector, chosen, seed, ids)


@readable
@on_gpu
def invert_vector(
    pasted, file, row, seed, strategy, steps, guidance, temperature, remask, candidates, corrections,
    feedback="encoder", searches=1,
):  # fmt: skip
    """Read a pasted vector, or a row of an uploaded file, draft by draft."""
    chosen = settings_of(strategy, steps, guidance, temperature, remask, candidates, corrections, feedback, searches)
    dim = inverter.embedding_dim
    vectors = parse_file(file, dim) if file else parse_pasted(pasted or "", dim)
    if int(row or 0) not in vectors:
        last = max(vectors)
        raise ValueError(f"There is no vector in row {int(row)}: {len(vectors)} lie in rows {min(vectors)} to {last}.")
    yield from show(vectors[int(row or 0)], chosen, seed)


def show(vector: torch.Tensor, settings: dict, seed, ids: list[int] | None = None):
    """Yields (draft, recovered text, figures, all steps so far)."""
    steps = []
    for item in inverter.drafts(vector, seed, **settings):
        if isinstance(item, Draft):
            steps.append(item.as_json())
            yield draft_html(item), "", "", steps
            time.sleep(FRAME_SECONDS)
        else:
            result = item
    if ids is not None:
        result.accuracy = inverter.accuracy(ids, result.ids)
    yield draft_html(Draft.from_json(steps[-1])), result.text, figures_html(result), steps


def replay(steps: list[dict] | None, index: int) -> str:
    """The draft after `index` passes."""
    if not steps:
        return ""
    return draft_html(Draft.from_json(steps[min(int(index), len(steps) - 1)]))


def replay_range(steps: list[dict] | None):
    """The slider over these steps, at their end."""
    last = len(steps or [None]) - 1
    return gr.Slider(maximum=max(last, 1), value=last, interactive=last > 0)


def play(steps: list[dict]):
    """All drafts, at the pace of a live run."""
    for index in range(len(steps)):
        yield replay(steps, index)
        time.sleep(FRAME_SECONDS)


@readable
@on_gpu
def compare(text, steps, seed):
    """All strategies on one sentence: a table, and cosine and accuracy after each pass."""
    _, ids, vector = read_text(text)
    rows, curves = [], []
    for strategy in STRATEGIES:
        start = time.perf_counter()
        output = inverter.generate(vector[None], seed, strategy=strategy, num_steps=int(steps), return_history=True)
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
def mix(first, second, points):
    """Texts on the way from one sentence's vector to another's, on the great circle between them."""
    (first, _, start), (second, _, stop) = read_text(first), read_text(second)
    angle = torch.arccos((start @ stop).clamp(-1, 1))
    if angle < 1e-3:
        raise ValueError("These two sentences have the same vector; choose two that differ.")
    shares = torch.linspace(0, 1, int(points))[:, None]
    between = (torch.sin((1 - shares) * angle) * start + torch.sin(shares * angle) * stop) / torch.sin(angle)
    texts = inverter.decode(inverter.generate(between).sequences)
    vectors = inverter.embed(texts)
    columns = zip(shares[:, 0].tolist(), texts, (vectors @ start).tolist(), (vectors @ stop).tolist(), strict=True)
    return [[f"{share:.0%}", text, round(near, 2), round(far, 2)] for share, text, near, far in columns]


@readable
@on_gpu
def leak(text, noise, storage, corrections):
    """Which content words of each line survive inversion of its stored vector."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    if len(lines) > MAX_LINES:
        raise ValueError(f"{len(lines)} lines; at most {MAX_LINES} are read at once.")
    if not lines:
        raise ValueError("Paste a line of text first.")
    lines = [" ".join(line.split()) for line in lines]
    vectors = torch.stack([read_text(line)[2] for line in lines])
    stored = protect(vectors, float(noise), storage == "int8")
    # narrower than usual: many lines, and somebody waits
    narrow = dict(feedback="encoder", num_candidates=8, num_beams=2, num_proposals=16)
    loop = dict(num_corrections=int(corrections), **narrow) if corrections else {}
    recovered = inverter.decode(inverter.generate(stored, **loop).sequences)
    rows = summary(lines, recovered)
    cosine = float((stored * vectors).sum(dim=1).mean())
    return leaks_html(lines, recovered), rows, explanation(rows, cosine)


def controls() -> list:
    """The sampler's settings, folded away."""
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            strategy = gr.Dropdown(STRATEGIES, value="confidence", label="Strategy")
            steps = gr.Slider(1, 32, value=8, step=1, label="Steps")
            guidance = gr.Slider(0, 4, value=1, step=0.1, label="Guidance (1 is none)")
        with gr.Row():
            # an empty number would be shown, and sent, as 0
            temperature = gr.Dropdown(TEMPERATURES, value=TEMPERATURES[0], label="Temperature")
            remask = gr.Slider(0, 0.5, value=0.05, step=0.05, label="Re-mask ratio (euler_remask)")
            seed = gr.Number(0, label="Seed", precision=0)
        with gr.Row():
            told = "the best of so many texts is kept; 1: nothing is checked"
            candidates = gr.Slider(1, 32, value=1, step=1, label="Candidates", info=told)
            told = "rounds of edits that are checked: slower, and reads much more"
            corrections = gr.Slider(0, 20, value=0, step=1, label="Corrections", info=told)
            judges = ["encoder", "surrogate"] if inverter.model.config.surrogate_rank else ["encoder"]
            told = "the encoder itself, or the model's own stand-in for it"
            feedback = gr.Radio(judges, value="encoder", label="Checked by", info=told)
            told = "begin again so often, where no text has reached the vector; the best one stays"
            searches = gr.Slider(1, 4, value=1, step=1, label="Searches", info=told)
    return [seed, strategy, steps, guidance, temperature, remask, candidates, corrections, feedback, searches]


def examples(text, standard: list, outputs: list):
    """Sentences to click on; on Hugging Face the first click's result is kept for all visitors."""

    def invert_example(text):
        yield from invert(text, *standard)

    offered = gr.Examples(
        EXAMPLES,
        text,
        outputs,
        invert_example,
        cache_mode="lazy",
        run_on_click=True,
        label="Examples, with the standard settings",
        api_visibility="private",
    )
    if offered.cache_event:
        draft, *_, steps = outputs
        offered.cache_event.then(play, steps, draft, api_visibility="private")


def invert_tab():
    """Type, paste or upload; watch; replay."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2):
            with gr.Tab("A sentence") as sentence:
                text = gr.Textbox(EXAMPLES[0], label="Sentence", lines=2, max_length=4 * MAX_CHARACTERS)
                go = gr.Button("Embed it and read it back", variant="primary")
            with gr.Tab("A vector"):
                pasted = gr.Textbox(label=f"Vector of {inverter.embedding_dim} numbers (JSON)", lines=3, max_lines=6)
                file = gr.File(label=f"or a file: {', '.join(KINDS)}", file_types=list(KINDS), height=120)
                row = gr.Number(0, label="Row of the file", precision=0, minimum=0)
                go_vector = gr.Button("Read it", variant="primary")
            chosen = controls()
        with gr.Column(scale=3):
            draft = gr.HTML('<div class="draft"></div>', label="Draft")
            gr.HTML(LEGEND)
            slider = gr.Slider(0, 64, value=0, step=1, label="Replay: after so many passes", interactive=False)
            recovered = gr.Textbox(label="Recovered text", interactive=False)
            figures = gr.HTML()
            with gr.Accordion("All steps as JSON", open=False):
                steps = gr.JSON(show_label=False)
    outputs = [draft, recovered, figures, steps]
    run = gr.on([go.click, text.submit], invert, [text, *chosen], outputs, api_name="invert")
    go_vector.click(invert_vector, [pasted, file, row, *chosen], outputs, api_name="invert_vector")
    with sentence:
        examples(text, [control.value for control in chosen], outputs)
    steps.change(replay_range, steps, slider, api_visibility="private", queue=False, show_progress="hidden")
    slider.input(replay, [steps, slider], draft, api_name="replay", queue=False)
    return run


def compare_tab():
    """Five strategies side by side."""
    with gr.Row():
        text = gr.Textbox(EXAMPLES[1], label="Sentence", scale=3)
        steps = gr.Slider(1, 32, value=8, step=1, label="Steps")
        seed = gr.Number(0, label="Seed", precision=0)
    go = gr.Button("Compare", variant="primary")
    columns = ["strategy", "recovered", "cosine", "tokens in place %", "passes", "ms"]
    table = gr.Dataframe(headers=columns, wrap=True, interactive=False, column_widths=["15%", "45%"])
    with gr.Row():
        cosine = gr.LinePlot(x="pass", y="cosine", color="strategy", title="Cosine with the vector", y_lim=[0, 1])
        accuracy = gr.LinePlot(
            x="pass", y="tokens in place %", color="strategy", title="Tokens in place", y_lim=[0, 100]
        )
    go.click(compare, [text, steps, seed], [table, cosine, accuracy], api_name="compare")


def mix_tab():
    """Between two sentences."""
    with gr.Row():
        first = gr.Textbox("The dog slept in front of the fire.", label="From")
        second = gr.Textbox("The train leaves at seven in the morning.", label="To")
    points = gr.Slider(3, 15, value=7, step=1, label="Points on the way")
    go = gr.Button("Mix", variant="primary")
    columns = ["share of the second", "text read at that point", "cosine with the first", "with the second"]
    table = gr.Dataframe(headers=columns, wrap=True, interactive=False)
    go.click(mix, [first, second, points], table, api_name="mix")


def leaks_tab():
    """Names, numbers and other words that survive."""
    text = gr.Textbox(LEAKING, label=f"Text, up to {MAX_LINES} lines", lines=4, max_lines=MAX_LINES)
    with gr.Row():
        noise = gr.Slider(0, 0.1, value=0, step=0.005, label="Noise λ added to every number of the vector")
        storage = gr.Radio(["float32", "int8"], value="float32", label="Stored as")
        corrections = gr.Slider(0, 20, value=3, step=1, label="Corrections by an attacker who has the encoder")
    go = gr.Button("What leaks?", variant="primary")
    marked, told = gr.HTML(), gr.Markdown()
    table = gr.Dataframe(headers=["kind", "in the text", "survived", "share"], interactive=False)
    outputs, inputs = [marked, table, told], [text, noise, storage, corrections]
    go.click(leak, inputs, outputs, api_name="leaks")
    gr.on([noise.release, storage.change, corrections.release], leak, inputs, outputs, api_visibility="private")


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="EmbInv", analytics_enabled=False) as page:
        gr.Markdown(
            "# EmbInv: what an embedding says\nA sentence becomes a vector, as in every search index; a masked "
            "diffusion model that sees **nothing but that vector** writes the sentence back, all words at once."
        )
        for name, tab in (
            ("Invert", invert_tab),
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


def launch(**options):
    """Start the page; fonts and everything else come from this server."""
    theme = gr.themes.Soft(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return build().launch(theme=theme, css=CSS, ssr_mode=False, max_file_size="20mb", **options)


if __name__ == "__main__":
    launch()
