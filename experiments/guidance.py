"""The best guidance scale of each strategy and number of steps, on validation texts.

    python experiments/guidance.py              # goes on where it was; 20 minutes on two cores, in int8

The texts are of at most 15 tokens, up to ten of each part of the training corpus, of documents that training held out.
Writes `results/guidance.json`: token F1 and BLEU of every combination, and the paired difference from no guidance.
"""

import json
import sys
from dataclasses import asdict

from kept_vectors import digest
from run import FOLDER
from verdicts import spread

from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.data.sources import read_texts, split_of
from modeling_embinv.evaluation.held_out import HeldOut, Measures, Score
from modeling_embinv.evaluation.report import markdown_table, sweep
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import keep_large_blocks

RESULTS = FOLDER / "results" / "guidance.json"
RECIPE = FOLDER.parent / "configs" / "minilm_gpu.yaml"
# of a text: tokens; of a part: texts; of the corpus: the documents that the recipe's run held out
LENGTH, OF_EACH_PART, VALIDATION_SHARE = 15, 10, 0.01
SCALES = (1.0, 1.25, 1.5, 2.0)
# sequential takes a pass a token, whatever the steps
METHODS = [*sweep(strategy=("confidence", "euler", "euler_remask"), num_steps=(4, 8, 16)), {"strategy": "sequential"}]


def main() -> int:
    keep_large_blocks()
    model, tokenizer = load_inverter(str(CHECKPOINT))
    model.eval().to_int8()
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    held_out, _ = HeldOut.of_texts(model, tokenizer, encoder, validation_texts(tokenizer))
    identity = {"texts": digest(repr(held_out.texts).encode()), "checksums": model.config.checksums}
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {**identity, "rows": {}}
    if any(known.get(name) != value for name, value in identity.items()):
        raise SystemExit(f"{RESULTS} is of other texts or another checkpoint: remove it to measure anew.")
    found = known["rows"]
    for method in METHODS:
        name = ", ".join(map(str, method.values()))
        if name not in found:
            found[name] = measure(held_out, method)
            print(name, {scale: row["token F1"]["mean"] for scale, row in found[name].items()}, flush=True)
            write_json(RESULTS, {**identity, "rows": found, "table": table(found)})
    return 0


def validation_texts(tokenizer) -> list[str]:
    """Whole texts of each part's held-out documents, at even distances."""
    chosen = []
    for path in sorted(set(load_yaml(RECIPE)["texts"])):
        documents = read_texts(FOLDER.parent / path)
        texts = [d.text for d in documents if split_of(d.key, VALIDATION_SHARE) == "validation"]
        chosen += spread(texts, tokenizer, range(LENGTH + 1), OF_EACH_PART)
    return chosen


def measure(held_out: HeldOut, method: dict) -> dict:
    """By scale: F1, BLEU, and the mean difference of F1 from no guidance on the same texts."""
    rows, base = {}, None
    for scale in SCALES:
        measures = held_out.measure(held_out.invert(guidance_scale=scale, **method))
        values = measures.by_text["token F1"]
        base = values if base is None else base
        scores = measures.scores() | {"gain": Measures({"gain": values - base}).scores()["gain"]}
        rows[str(scale)] = {name: asdict(scores[name]) for name in ("token F1", "BLEU", "gain")}
    return rows


def table(found: dict) -> str:
    """Markdown: F1 and BLEU of no guidance, and the change of both by each scale."""
    scales = [str(scale) for scale in SCALES[1:]]
    heads = [
        "strategy, steps",
        "token F1",
        "BLEU",
        *(f"F1, scale {s}" for s in scales),
        *(f"BLEU, {s}" for s in scales),
    ]
    lines = [heads]
    for name, rows in found.items():
        plain = rows["1.0"]
        gains = [_signed(Score(**rows[scale]["gain"])) for scale in scales]
        bleu = [f"{rows[scale]['BLEU']['mean'] - plain['BLEU']['mean']:+.1f}" for scale in scales]
        lines.append([name, f"{plain['token F1']['mean']:.1f}", f"{plain['BLEU']['mean']:.1f}", *gains, *bleu])
    return markdown_table(lines)


def _signed(score: Score) -> str:
    return f"{score.mean:+.1f} [{score.low:+.1f}, {score.high:+.1f}]"


if __name__ == "__main__":
    sys.exit(main())
