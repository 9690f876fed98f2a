"""The best guidance scale of each strategy and number of steps, on validation texts.

    python experiments/guidance.py              # goes on where it was; 10 minutes on two cores, in int8

Writes `results/guidance.json`: token F1 and BLEU of every combination, and the paired difference from no guidance.
"""

import json
import sys
from dataclasses import asdict

import torch
from run import FOLDER

from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.data.batches import held_out_pairs
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.evaluation.held_out import HeldOut, Measures, Score
from modeling_embinv.evaluation.report import markdown_table, sweep
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.texts_embinv import decode_rows

RESULTS = FOLDER / "results" / "guidance.json"
PAIRS, LENGTH, TEXTS = "data/minilm_16", 15, 300
SCALES = (1.0, 1.25, 1.5, 2.0)
# sequential takes a pass a token, whatever the steps
METHODS = [*sweep(strategy=("confidence", "euler", "euler_remask"), num_steps=(4, 8, 16)), {"strategy": "sequential"}]


def main() -> int:
    keep_large_blocks()
    model, tokenizer = load_inverter(str(CHECKPOINT))
    model.eval().to_int8()
    encoder, end = load_encoder(EncoderConfig.of_inverter(model.config)), model.config.eos_token_id
    ids, embeddings = held_out_pairs(PAIRS, LENGTH + 1, TEXTS)
    ids = torch.nn.functional.pad(ids, (0, model.config.max_sequence_length - ids.shape[1]), value=end)
    held_out = HeldOut(model, tokenizer, encoder, ids, embeddings, decode_rows(tokenizer, ids, end))
    found = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for method in METHODS:
        name = ", ".join(map(str, method.values()))
        if name not in found:
            found[name] = measure(held_out, method)
            print(name, {scale: row["token F1"]["mean"] for scale, row in found[name].items()}, flush=True)
            write_json(RESULTS, {"rows": found, "table": table(found)})
    return 0


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
