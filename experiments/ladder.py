"""The README's picture and its demo: one sentence at four levels of effort, and what `make demo` prints.

    python experiments/ladder.py        # `make ladder`: runs the checkpoint, then draws

Writes `results/ladder.json`; `draw` makes `docs/images/ladder.svg` of it, as `make results` does.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from difflib import SequenceMatcher
from html import escape
from pathlib import Path

from modeling_embinv.data.files import write_json, write_text
from modeling_embinv.evaluation import metrics

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "ladder.json"
PICTURE = FOLDER.parent / "docs" / "images" / "ladder.svg"
SENTENCE = "He sold his company to a bank for five million dollars."
SEARCH = {"num_candidates": 16, "num_corrections": 10}
RUNGS = {
    "one draft": {"num_draft_beams": 1},
    "4 beams": {},
    "with the surrogate": {**SEARCH, "feedback": "surrogate"},
    "with the encoder": {**SEARCH, "feedback": "encoder"},
}
# what `make demo` runs
DEMO = ("embinv demo", "embinv demo --preset thorough --feedback encoder")

WIDTH, ROW, TOP, LABEL, TEXT, SCORE = 960, 58, 62, 24, 212, 888
MOST_CHARACTERS = 74
STYLE = """
  .panel { fill: #ffffff; stroke: #d0d7de }
  text { font: 15px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .name { font-weight: 600 }
  .small { font-size: 12px; fill: #59636e }
  .right { fill: #116329; font-weight: 600 }
  .wrong { fill: #a40e26 }
  .line { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .right { fill: #56d364 }
    .wrong { fill: #ff7b72 }
    .line { stroke: #3d444d }
  }
"""


def main() -> int:
    write_json(RESULTS, {"sentence": SENTENCE, "rungs": climb(), "demo": [printed(command) for command in DEMO]})
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    write_text(PICTURE, draw(json.loads(RESULTS.read_text(encoding="utf-8"))))
    return 0


def climb() -> list[dict]:
    """The sentence's vector inverted with each rung's settings: text, cosine and what it cost."""
    from modeling_embinv.cli.options import MODEL
    from modeling_embinv.data.encoders import load_encoder
    from modeling_embinv.loading import load_inverter
    from modeling_embinv.runtime import generator_for

    model, tokenizer = load_inverter(MODEL)
    encoder = load_encoder(model.config.encoder_id)
    vector = encoder.encode([SENTENCE])
    rungs = []
    for name, settings in RUNGS.items():
        called = {**settings, "feedback": encoder.encode} if settings.get("feedback") == "encoder" else settings
        output = model.generate(vector, tokenizer=tokenizer, generator=generator_for(0), **called)
        (text,) = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        rungs.append(
            {
                "name": name,
                "settings": settings,
                "text": text,
                "cosine": metrics.cosine(encoder.encode([text]), vector).item(),
                "passes": output.num_forward_passes,
                "encoder_calls": output.num_feedback_calls,
                "surrogate_calls": output.num_surrogate_calls,
            }
        )
        print(rungs[-1], flush=True)
    return rungs


def printed(command: str) -> dict[str, str]:
    """A command of the CLI and what it writes, without the seconds, which are this machine's."""
    _, *arguments = command.split()
    run = [sys.executable, "-m", "modeling_embinv.cli", *arguments]
    output = subprocess.run(run, cwd=FOLDER.parent, capture_output=True, text=True, check=True).stdout
    output = re.sub(r" in \d+ s: ", ": ", output)
    return {"command": command, "output": "\n".join(line.rstrip() for line in output.strip().splitlines())}


def draw(ladder: dict) -> str:
    """The rungs as an SVG; words in the original's order are green, the others red."""
    sentence = ladder["sentence"]

    def body(rung: dict, top: int) -> list[str]:
        return [f'<text x="{TEXT}" y="{top + 34}">{words(rung["text"], sentence)}</text>']

    return picture(description(ladder), "only its vector is known: ", sentence, ladder["rungs"], cost, body)


def picture(
    title: str,
    lead: str,
    known: str,
    rungs: list[dict],
    cost: Callable[[dict], str],
    body: Callable[[dict, int], list[str]],
) -> str:
    """A panel as an SVG: what is known, and a row for each rung with its name, what it cost, its body and its cosine.

    Args:
        title: the picture in words. lead: stands small before what is `known`.
        body: of a rung, given the height where it begins.
    """
    height = TOP + ROW * len(rungs) + 18
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="panel" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="10"/>',
        f'<text x="{LABEL}" y="36"><tspan class="small">{lead}</tspan>{escape(known)}</text>',
        f'<text class="small" x="{SCORE}" y="36">cosine</text>',
    ]
    for index, rung in enumerate(rungs):
        top = TOP + ROW * index
        lines += [
            f'<line class="line" x1="{LABEL}" y1="{top}" x2="{WIDTH - LABEL}" y2="{top}"/>',
            f'<text class="name" x="{LABEL}" y="{top + 26}">{escape(rung["name"])}</text>',
            f'<text class="small" x="{LABEL}" y="{top + 45}">{cost(rung)}</text>',
            *body(rung, top),
            f'<text x="{SCORE}" y="{top + 34}">{rung["cosine"]:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])


def description(ladder: dict) -> str:
    """The picture in words, for those who cannot see it."""
    rungs = "; ".join(f"{rung['name']}: {rung['text']}" for rung in ladder["rungs"])
    return f"The vector of “{ladder['sentence']}” inverted. {rungs}"


def cost(rung: dict) -> str:
    if rung["encoder_calls"]:
        return f"{rung['encoder_calls']} encoder calls"
    if rung["surrogate_calls"]:
        return "no encoder call"
    return "1 forward pass" if rung["passes"] == 1 else f"{rung['passes']} forward passes"


def words(text: str, sentence: str) -> str:
    """The text's words as spans, right where they match the sentence's in order, else wrong; a long text is cut."""
    text = text if len(text) <= MOST_CHARACTERS else f"{text[: text.rindex(' ', 0, MOST_CHARACTERS)]} …"
    own, original = text.split(), sentence.lower().split()
    blocks = SequenceMatcher(None, own, original, autojunk=False).get_matching_blocks()
    right = {block.a + offset for block in blocks for offset in range(block.size)}
    spans = [
        f'<tspan class="{"right" if index in right else "wrong"}">{escape(word)}</tspan>'
        for index, word in enumerate(own)
    ]
    return " ".join(spans)


if __name__ == "__main__":
    sys.exit(main())
