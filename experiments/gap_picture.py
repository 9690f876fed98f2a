"""The README's first picture: a redacted sentence and its vector, and how the hidden words come back.

    python experiments/gap_picture.py        # `make ladder`: runs the checkpoint, then draws

Writes `results/gap_picture.json`; `draw` makes `docs/images/redacted.svg` of it, as `make results` does.
"""

import json
import sys
from html import escape
from pathlib import Path

from ladder import TEXT, picture

from modeling_embinv.data.files import write_json, write_text
from modeling_embinv.filled_embinv import VERDICTS

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "gap_picture.json"
PICTURE = FOLDER.parent / "docs" / "images" / "redacted.svg"
SENTENCE = "The patient was treated for lung cancer in Boston."
REDACTED = "The patient was treated for ▇▇▇ in ▇▇▇."
OTHER = "We will meet at the station on Friday evening."
RUNGS = ("with the surrogate", "with the encoder", "another text's vector")
BARS = "▇▇▇"


def main() -> int:
    write_json(RESULTS, {"sentence": SENTENCE, "redacted": REDACTED, "other": OTHER, "rungs": fillings()})
    write_text(PICTURE, draw(json.loads(RESULTS.read_text(encoding="utf-8"))))
    return 0


def fillings() -> list[dict]:
    """The sentence's gaps filled by each judge, and by the encoder with the vector of another sentence."""
    from modeling_embinv.cli.options import MODEL
    from modeling_embinv.data.encoders import load_encoder
    from modeling_embinv.loading import load_inverter

    model, tokenizer = load_inverter(MODEL)
    encoder = load_encoder(model.config.encoder_id)
    rungs = []
    for name in RUNGS:
        vector = encoder.encode([OTHER if name == RUNGS[-1] else SENTENCE])
        feedback = "surrogate" if name == RUNGS[0] else encoder.encode
        output = model.fill(vector, [REDACTED], tokenizer=tokenizer, feedback=feedback)
        (filled,) = output.texts
        calls = {"encoder_calls": output.num_feedback_calls, "surrogate_calls": output.num_surrogate_calls}
        rungs.append({"name": name, **filled.as_dict(), **calls})
        print(rungs[-1], flush=True)
    return rungs


def draw(results: dict) -> str:
    """The redacted text and its fillings as an SVG; right words are green, the others red."""

    def cost(rung: dict) -> str:
        return f"{rung['encoder_calls'] or 'no'} encoder calls"

    def body(rung: dict, top: int) -> list[str]:
        verdict = f"{escape(rung['verdict'])}: {escape(VERDICTS[rung['verdict']])}"
        return [
            f'<text x="{TEXT}" y="{top + 26}">{words(rung, hidden(results))}</text>',
            f'<text class="small" x="{TEXT}" y="{top + 45}">{verdict}</text>',
        ]

    lead = "known, beside the vector of the whole: "
    return picture(description(results), lead, results["redacted"], results["rungs"], cost, body)


def hidden(results: dict) -> list[str]:
    """What the bars hide."""
    words, rest = [], results["sentence"]
    before, *pieces = results["redacted"].split(BARS)
    rest = rest.removeprefix(before)
    for piece in pieces:
        word, rest = rest.split(piece, 1) if piece else (rest, "")
        words.append(word)
    return words


def words(rung: dict, wanted: list[str]) -> str:
    """The filled text, its gaps marked as right or wrong with their probability."""
    marked, position = [], 0
    for gap, word in zip(rung["gaps"], wanted, strict=True):
        kind = "right" if gap["text"].lower() == word.lower() else "wrong"
        marked.append(escape(rung["text"][position : gap["start"]]))
        marked.append(
            f'<tspan class="{kind}">{escape(gap["text"])}</tspan>'
            f'<tspan class="small"> {100 * gap["probability"]:.0f} %</tspan>'
        )
        position = gap["end"]
    return "".join([*marked, escape(rung["text"][position:])])


def description(results: dict) -> str:
    """The picture in words, for those who cannot see it."""
    rungs = "; ".join(f"{rung['name']}: {rung['text']} ({rung['verdict']})" for rung in results["rungs"])
    return f"“{results['redacted']}” and the vector of “{results['sentence']}”. {rungs}"


if __name__ == "__main__":
    sys.exit(main())
