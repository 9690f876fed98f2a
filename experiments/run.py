"""Train and score the variants of an experiment, one after the other, and print them as one table.

    python experiments/run.py experiments/mask_ratio.yaml            # at the scale that a pair of CPU cores affords
    python experiments/run.py experiments/mask_ratio.yaml --full     # at the paper's scale, on GPUs

An experiment is a YAML: `title`, `full` and `reduced` (each a training config and flags that all variants share), and
`variants` (a name, and the flags that make it, or `full` and `reduced` flags). Called again, it goes on where it
stopped. Scores of the validation split, held out by document, go to `experiments/results/NAME.json`, from which
RESULTS.md is made.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from modeling_embinv.backbone import load_inverter
from modeling_embinv.batches import held_out_pairs
from modeling_embinv.canvas import decode_rows
from modeling_embinv.encoders import EncoderConfig, load_encoder
from modeling_embinv.evaluation import HeldOut, Score
from modeling_embinv.files import write_json
from modeling_embinv.report import cells
from modeling_embinv.training import train
from modeling_embinv.training_config import TrainingConfig, parse_training_config
from modeling_embinv.validation import ValidationSet, masked_scores

FOLDER = Path(__file__).parent
COLUMNS = ("token accuracy", "token F1", "exact", "BLEU", "cosine")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="YAML of the experiment")
    parser.add_argument("--full", action="store_true", help="the paper's scale in place of the reduced one")
    parser.add_argument("--only", nargs="+", help="names of variants; all by default")
    parser.add_argument("--texts", type=int, default=500, help="validation texts that are inverted")
    options = parser.parse_args(arguments)
    experiment = yaml.safe_load(Path(options.experiment).read_text(encoding="utf-8"))
    scale = "full" if options.full else "reduced"
    name = f"{Path(options.experiment).stem}_{scale}"
    results = {"title": experiment["title"], "scale": experiment[scale].get("note", ""), "rows": {}}
    for variant in experiment["variants"]:
        if options.only and variant not in options.only:
            continue
        config = variant_config(experiment, variant, scale, f"runs/experiments/{name}/{_slug(variant)}")
        print(f"— {variant}", flush=True)
        results["rows"][variant] = score(config, train(config), options.texts)
        write_json(FOLDER / "results" / f"{name}.json", results)
    Console(width=None if sys.stdout.isatty() else 150).print(table(results))
    return 0


def variant_config(experiment: dict, variant: str, scale: str, output_dir: str) -> TrainingConfig:
    """The training config of a variant: the file and flags of the scale, then its own, which may differ by scale."""
    base, flags = experiment[scale], experiment["variants"][variant] or {}
    merged = {**base.get("flags", {}), **flags.get(scale, flags), "output_dir": output_dir}
    words = [part for key, value in merged.items() for part in (f"--{key}", *map(str, _listed(value)))]
    return parse_training_config([str(FOLDER / base["config"]), *words])


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")


def score(config: TrainingConfig, folder: Path, texts: int) -> dict:
    """Scores of a trained variant on the validation split of its pairs: means with intervals, and losses in nats."""
    encoder = load_encoder(EncoderConfig.from_yaml(config.encoder))
    model, tokenizer = load_inverter(folder)
    model.eval()
    end = model.config.eos_token_id
    ids, embeddings = held_out_pairs(config.pairs, end, config.max_sequence_length, texts)
    held_out = HeldOut(model, tokenizer, encoder, ids, embeddings, decode_rows(tokenizer, ids, end))
    recovered = held_out.invert()
    scores = {name: asdict(value) for name, value in held_out.measure(recovered).scores().items()}
    losses = masked_scores(model, ValidationSet(ids, embeddings, 0, model.noise_schedule))
    return {"texts": len(ids), "updates": config.max_steps, "losses": losses, "scores": scores}


def table(results: dict) -> Table:
    shown = Table("", "updates", "loss", "fully masked", *COLUMNS, title=results["title"], caption=results["scale"])
    for variant, row in results["rows"].items():
        losses = [f"{row['losses'][name]:.3f}" for name in ("loss", "loss_fully_masked")]
        scores = {name: Score(**score) for name, score in row["scores"].items()}
        shown.add_row(variant, str(row["updates"]), *losses, *cells(scores, COLUMNS))
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
