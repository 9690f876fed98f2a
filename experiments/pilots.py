"""One trunk, two orders: how a long run should be set up, by pilots at equal operations.

    python experiments/pilots.py                                   # every variant, one after the other, resumable
    python experiments/pilots.py --only "masked only" --texts 400

Every variant starts from the same weights, the encoder's own layers after one bag-of-words warm-up, sees the same
pairs in the same order, and stops when its matrix products have spent `--teraflop`. Scores are of the validation
split, held out by document, and go to `experiments/results/pilots.json`. The pairs:

    embinv prepare ../shared/corpus/en/{tanaka,commonvoice,queries-assistant,queries-banking,queries-restaurant,\
web-ewt,books-fiction,wikipedia-simple}.txt.xz --out data/pilots_16 --length 16 --max_tokens 15 --share 0.17 \
--shard_size 10000 --validation_share 0.012
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from modeling_embinv.allocator import keep_large_blocks
from modeling_embinv.backbone import load_inverter
from modeling_embinv.bag_of_words import warm_up_on_words
from modeling_embinv.batches import PairBatches, causal_batch, generator_for, is_causal_update, noise_batch
from modeling_embinv.checkpoints import export
from modeling_embinv.data import load_pairs
from modeling_embinv.encoders import EncoderConfig, load_encoder
from modeling_embinv.files import write_json
from modeling_embinv.flops import training_flops
from modeling_embinv.training import build_model, train
from modeling_embinv.training_config import TrainingConfig

FOLDER = Path(__file__).parent
RUNS = Path("runs/pilots")
RESULTS = FOLDER / "results" / "pilots.json"
SETTINGS = dict(
    encoder="configs/encoders/minilm.yaml", pairs="data/pilots_16", max_sequence_length=16, num_condition_tokens=4,
    noise_schedule="linear", full_mask_share=0.15, tail_share=0.25, loss_weight="none", batch_size=128,
    learning_rate=5e-4, embedding_rate=0.1, ema_decay=0.98, validation_size=256, generation_size=4, log_steps=20,
    eval_steps=10**6, save_steps=100, keep_checkpoints=1,
)  # fmt: skip
WARM_UP = dict(bag_of_words_steps=150, bag_of_words_batch_size=1024)
# a variant's stages: the share of the operations that each takes, and its settings
VARIANTS = {
    "masked only": [(1, {})],
    "left to right only": [(1, {"causal_share": 1})],
    "a third left to right": [(1, {"causal_share": 1 / 3})],
    "two thirds left to right": [(1, {"causal_share": 2 / 3})],
    "first left to right, then half": [
        (0.5, {"causal_share": 1, "lr_scheduler": "constant"}),
        (0.5, {"causal_share": 0.5}),
    ],
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="variants")
    parser.add_argument("--teraflop", type=float, default=120, help="of a variant's training")
    parser.add_argument("--texts", type=int, default=400, help="validation texts")
    parser.add_argument("--precision", default="bf16", help="of matrix products in training: bf16, no")
    parser.add_argument("--train_only", action="store_true", help="score nothing")
    options = parser.parse_args(arguments)
    keep_large_blocks()
    os.environ.setdefault("ACCELERATE_MIXED_PRECISION", options.precision)
    start = starting_weights()
    for variant in options.only:
        print(f"— {variant}", flush=True)
        train_variant(variant, start, options.teraflop)
    return 0


def starting_weights() -> Path:
    """The encoder's layers after a bag-of-words warm-up, which all variants share."""
    folder = RUNS / "start"
    if not folder.exists():
        config = TrainingConfig(output_dir=str(folder), backbone="encoder", **SETTINGS, **WARM_UP)
        torch.manual_seed(config.seed)
        model, tokenizer = build_model(config, load_encoder(EncoderConfig.from_yaml(config.encoder)))
        warm_up_on_words(model, pair_batches(model), config, Accelerator())
        export(model, tokenizer, folder)
    return folder


def pair_batches(model) -> PairBatches:
    return PairBatches(load_pairs(SETTINGS["pairs"], "train"), model.config.eos_token_id, seed=0)


def train_variant(variant: str, start: Path, teraflop: float) -> Path:
    """The folder of a variant's weights; trained unless that is done."""
    folder = start
    for number, (part, settings) in enumerate(VARIANTS[variant]):
        run = RUNS / f"{variant.replace(' ', '_').replace(',', '')}_{number}"
        config = TrainingConfig(output_dir=str(run), init_from=str(folder), **{**SETTINGS, **settings})
        folder = run / "last"
        if not folder.exists():
            config.max_steps, spent = updates_for(config, 1e12 * part * teraflop)
            config.warmup_steps = config.max_steps // 12
            began = time.perf_counter()
            train(config)
            seconds = time.perf_counter() - began
            write_json(run / "spent.json", {"updates": config.max_steps, "teraflop": spent / 1e12, "seconds": seconds})
            for checkpoint in [*run.glob("step-*"), *run.glob("best")]:
                shutil.rmtree(checkpoint)
    return folder


def updates_for(config: TrainingConfig, operations: float) -> tuple[int, float]:
    """How many updates of a run spend so many operations, and what they spend."""
    model, _ = load_inverter(config.init_from)
    masked, causal = update_operations(model, config)
    updates, spent = 0, 0.0
    while spent < operations:
        spent += causal if is_causal_update(config.causal_share, config.seed, updates) else masked
        updates += 1
    return updates, spent


def update_operations(model, config: TrainingConfig, batches: int = 8) -> tuple[float, float]:
    """Operations of a masked and of a causal update: the mean over some batches."""
    pairs, end, masked, causal = pair_batches(model), model.config.eos_token_id, 0.0, 0.0
    for index in range(batches):
        ids, embedding = pairs.batch(index, config.batch_size, config.max_sequence_length)
        noised = noise_batch(
            ids, embedding, config.schedule, model.config.mask_token_id, generator_for(config.seed, index),
            config.full_mask_share, config.condition_dropout, end, config.tail_share,
        )  # fmt: skip
        plain = causal_batch(ids, embedding, end, generator_for(config.seed, index))
        masked += training_flops(model, *ids.shape, len(noised.positions)) / batches
        causal += training_flops(model, len(ids), plain.input_ids.shape[1] - 1, len(plain.positions)) / batches
    return masked, causal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
