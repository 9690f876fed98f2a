"""One trunk, two orders: how a long run should be set up, by pilots at equal operations.

    python experiments/pilots.py                                   # every variant, one after the other, resumable
    python experiments/pilots.py --only "masked only" --texts 400

Every variant starts from the same weights, the encoder's own layers after one bag-of-words warm-up, sees the same
pairs in the same order at a constant rate, and stops when its matrix products have spent `--teraflop`; a later call
with more of them goes on from there. Scores are of the averaged weights on the validation split, held out by document,
and go to `experiments/results/pilots.json`. The pairs:

    embinv prepare ../shared/corpus/en/{tanaka,commonvoice,queries-assistant,queries-banking,queries-restaurant,\
web-ewt,books-fiction,wikipedia-simple}.txt.xz --out data/pilots_16 --length 16 --max_tokens 15 --share 0.17 \
--shard_size 10000 --validation_share 0.012
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from run import text_losses
from tables import table

from modeling_embinv.data.batches import PairBatches, held_out_pairs
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.noise import causal_batch, kind_of_update, noise_batch
from modeling_embinv.data.pairs import load_pairs
from modeling_embinv.diffusion_embinv import Canvas, remask_step, text_positions
from modeling_embinv.evaluation.held_out import HeldOut, Recovered, Score
from modeling_embinv.evaluation.metrics import bleu_counts, bleu_of_counts
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import generator_for, keep_large_blocks
from modeling_embinv.texts_embinv import decode_rows
from modeling_embinv.training.assemble import train
from modeling_embinv.training.bag_of_words import warm_up_on_words
from modeling_embinv.training.checkpoints import export
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.drafts import draft_operations
from modeling_embinv.training.flops import training_flops
from modeling_embinv.training.losses import LENGTH_PARTS
from modeling_embinv.training.machine import precision_of
from modeling_embinv.training.run_model import build_model
from modeling_embinv.training.validation import ValidationSet, causal_score

FOLDER = Path(__file__).parent
RUNS = Path("runs/pilots")
RESULTS = FOLDER / "results" / "pilots.json"
SETTINGS = dict(
    encoder="minilm", pairs="data/pilots_16", max_sequence_length=16, num_condition_tokens=4,
    noise_schedule="linear", full_mask_share=0.15, tail_share=0.25, loss_weight="none", batch_size=64,
    learning_rate=5e-4, embedding_rate=0.1, lr_scheduler="constant", warmup_steps=20, ema_decay=0.98,
    validation_size=256, generation_size=4, log_steps=20, eval_steps=10**6, save_steps=100, keep_checkpoints=1,
)  # fmt: skip
WARM_UP = dict(bag_of_words_steps=80, bag_of_words_batch_size=256)
# share of a draft's tokens, the least sure ones, that refinement writes anew
REOPENED = 0.3
# ten rounds of a narrow search, on the first texts alone. The encoder judges: no pilot has a surrogate
SEARCH = dict(num_candidates=8, num_corrections=10, num_beams=2, num_proposals=16, num_hops=1)
SEARCHED, COLUMNS = 64, ["texts", "token F1", "exact", "BLEU", "cosine"]
# a variant's stages: the share of the operations that each takes, and its settings
VARIANTS = {
    "masked only": [(1, {})],
    "left to right only": [(1, {"causal_share": 1})],
    "a third left to right": [(1, {"causal_share": 1 / 3})],
    "two thirds left to right": [(1, {"causal_share": 2 / 3})],
    "two thirds, own drafts": [(1, {"causal_share": 2 / 3, "draft_share": 0.2})],
    "two thirds, complementary masks": [(1, {"causal_share": 2 / 3, "complementary_masks": True})],
    "first left to right, then half": [
        (0.5, {"causal_share": 1}),
        (0.5, {"causal_share": 0.5, "seed": 1}),
    ],
    "two thirds, batches of 256": [(1, {"causal_share": 2 / 3, "batch_size": 256})],
    "two thirds, batches of 256, Muon": [(1, {"causal_share": 2 / 3, "batch_size": 256, "optimizer": "muon"})],
}
# of Muon's iteration that makes a matrix orthogonal, in each update
NEWTON_SCHULZ_STEPS = 5


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="variants")
    parser.add_argument("--teraflop", type=float, default=60, help="of a variant's training")
    parser.add_argument("--texts", type=int, default=400, help="validation texts")
    parser.add_argument(
        "--precision", choices=("bf16", "float32"), default="bf16", help="of training's matrix products"
    )
    options = parser.parse_args(arguments)
    keep_large_blocks()
    start = starting_weights(options.precision)
    for variant in options.only:
        print(f"— {variant}", flush=True)
        folder = train_variant(variant, start, options.teraflop, options.precision)
        path, updates = folder.parent / "score.json", json.loads((folder.parent / "spent.json").read_text())["updates"]
        scores = json.loads(path.read_text()) if path.exists() else {"of_updates": 0}
        if scores["of_updates"] < updates:
            scores = {"of_updates": updates, **score(folder, options.texts)}
            write_json(path, scores)
        if "searched" not in scores:
            write_json(path, {**scores, "searched": searched(folder)})
    rows = collect()
    settings, compared = SETTINGS | WARM_UP, differences(rows, options.texts)
    rounds = {variant: row.pop("searched") for variant, row in rows.items() if "searched" in row}
    found = {"settings": settings, "reopened": REOPENED, "rows": rows, "differences": compared}
    write_json(RESULTS, {**found, "searched": {"columns": COLUMNS, "digits": 1, "rows": rounds}})
    print(table({"of": "pilots", "methods": True}))
    return 0


def starting_weights(precision: str) -> Path:
    """The encoder's layers after a bag-of-words warm-up, which all variants share."""
    folder = RUNS / "start"
    if not folder.exists():
        config = TrainingConfig(output_dir=str(folder), backbone="encoder", **SETTINGS, **WARM_UP)
        torch.manual_seed(config.seed)
        model, tokenizer = build_model(config, load_encoder(EncoderConfig.from_yaml(config.encoder)))
        warm_up_on_words(
            model, pair_batches(model), config.word_warm_up(), Accelerator(mixed_precision=precision_of(precision))
        )
        export(model, tokenizer, folder)
    return folder


def pair_batches(model) -> PairBatches:
    return PairBatches(load_pairs(SETTINGS["pairs"], "train"), model.config.eos_token_id, seed=0)


def run_folder(variant: str, stage: int) -> Path:
    return RUNS / f"{variant.replace(' ', '_').replace(',', '')}_{stage}"


def train_variant(variant: str, start: Path, teraflop: float, precision: str) -> Path:
    """The folder of a variant's weights; trained unless that is done, and on from where fewer operations ended."""
    folder = start
    for number, (part, settings) in enumerate(VARIANTS[variant]):
        run = run_folder(variant, number)
        settings = {**SETTINGS, **settings, "mixed_precision": precision}
        config = TrainingConfig(output_dir=str(run), init_from=str(folder), **settings)
        config.max_steps, spent = updates_for(config, 1e12 * part * teraflop)
        folder, done = run / "last", run / "spent.json"
        if not done.exists() or json.loads(done.read_text())["updates"] < config.max_steps:
            train(config)
            write_json(done, spent)
    return folder


def updates_for(config: TrainingConfig, operations: float) -> tuple[int, dict]:
    """How many updates of a run spend so many operations, and what they are."""
    masked, causal = update_operations(load_inverter(config.init_from)[0], config)
    updates = causal_updates = 0
    while (updates - causal_updates) * masked + causal_updates * causal < operations:
        causal_updates += kind_of_update(config.shares[0], 0.0, config.seed, updates) == "causal"
        updates += 1
    teraflop = ((updates - causal_updates) * masked + causal_updates * causal) / 1e12
    return updates, {"updates": updates, "causal_updates": causal_updates, "teraflop": teraflop}


def update_operations(model, config: TrainingConfig, batches: int = 8) -> tuple[float, float]:
    """Operations of a masked and of a causal update: the mean over some batches."""
    pairs, end, masked, causal = pair_batches(model), model.config.eos_token_id, 0.0, 0.0
    for index in range(batches):
        ids, embedding = pairs.batch(index, config.batch_size, config.max_sequence_length)
        texts = (noise := config.noise_of(model)).texts_of(config.batch_size)
        noised = noise_batch(ids[:texts], embedding[:texts], noise, generator_for(config.seed, index))
        plain = causal_batch(ids, embedding, end, generator_for(config.seed, index))
        masked += training_flops(model, *noised.input_ids.shape, len(noised.positions)) / batches
        masked += draft_operations(model, noised) / batches
        for part in plain.by_length(LENGTH_PARTS):
            rows, length = part.input_ids.shape
            causal += training_flops(model, rows, length - 1, len(part.positions)) / batches
    own = muon_operations(model) if config.optimizer == "muon" else 0.0
    return masked + own, causal + own


def muon_operations(model) -> float:
    """Of one update: each step is X Xᵀ, its square and a product with X, for matrices X of m ≤ n."""
    shapes = [sorted(weight.shape) for weight in model.trunk.layers.parameters() if weight.ndim == 2]
    return NEWTON_SCHULZ_STEPS * sum(4.0 * m * m * n + 2.0 * m**3 for m, n in shapes)


@torch.no_grad()
def score(folder: Path, texts: int) -> dict:
    """Losses in nats, and what each way of writing brings back of validation texts."""
    held_out = validation_texts(folder, texts)
    model = held_out.model
    losses = text_losses(model, held_out)
    if model.config.causal_share:
        known = ValidationSet(held_out.input_ids, held_out.embeddings, 0, model.noise_schedule)
        losses["left to right"] = causal_score(model, known)
    with torch.autocast("cpu", torch.bfloat16):  # as it was trained, and three times as fast
        found = written(held_out)
    write_json(folder.parent / "texts.json", {name: recovered.texts for name, recovered in found.items()})
    scores = {name: scores_of(held_out, recovered) for name, recovered in found.items()}
    return {"texts": len(held_out.texts), "losses": losses, "scores": scores}


@torch.no_grad()
def searched(folder: Path) -> dict:
    """Scores of ten rounds on the first validation texts."""
    held_out = validation_texts(folder, SEARCHED)
    held_out.model.to_int8()
    return {"texts": SEARCHED, **scores_of(held_out, held_out.invert(**SEARCH, feedback="encoder"))}


def validation_texts(folder: Path, texts: int) -> HeldOut:
    """A pilot with the first validation texts."""
    model, tokenizer = load_inverter(folder)
    ids, embeddings = held_out_pairs(SETTINGS["pairs"], SETTINGS["max_sequence_length"], texts)
    encoder = load_encoder(EncoderConfig.from_yaml(SETTINGS["encoder"]))
    originals = decode_rows(tokenizer, ids, model.eval().config.eos_token_id)
    return HeldOut(model, tokenizer, encoder, ids, embeddings, originals)


def scores_of(held_out: HeldOut, recovered: Recovered) -> dict:
    """Scores as JSON has them."""
    return {name: asdict(score) for name, score in held_out.measure(recovered).scores().items()}


def written(held_out: HeldOut) -> dict[str, Recovered]:
    """What each method writes; a model that never learned left to right drafts by masked passes, a token each."""
    strategy = "autoregressive" if held_out.model.config.causal_share else "sequential"
    draft = held_out.invert(strategy=strategy)
    if held_out.model.config.causal_share == 1:  # it never saw a [MASK]
        return {"draft": draft}
    found = {"draft": draft, "masked, 8 passes": held_out.invert(num_steps=8)}
    return found | {f"draft, {passes} passes": refined(held_out, draft, passes) for passes in (2, 4)}


def refined(held_out: HeldOut, draft: Recovered, passes: int) -> Recovered:
    """A draft whose least sure tokens are written anew in parallel."""
    tokens = held_out.model.config
    ids = draft.ids.masked_fill(~text_positions(draft.ids, held_out.end), held_out.end)
    canvas = remask_step(Canvas(ids, draft.confidence, tokens.mask_token_id, held_out.end), REOPENED)
    parts = zip(held_out.embeddings.split(64), canvas.ids.split(64), strict=True)
    ids = torch.cat([
        held_out.model.generate(vectors, draft_ids=known, num_steps=passes).sequences for vectors, known in parts
    ])  # fmt: skip
    return Recovered(ids, decode_rows(held_out.tokenizer, ids, held_out.end))


def collect() -> dict:
    """What is finished: each variant's operations and updates, losses and scores."""
    rows = {}
    for variant, stages in VARIANTS.items():
        folders = [run_folder(variant, number) for number in range(len(stages))]
        if (path := folders[-1] / "score.json").exists():
            spent = [json.loads((folder / "spent.json").read_text()) for folder in folders]
            total = {key: sum(part[key] for part in spent) for key in spent[0]}
            rows[variant] = total | json.loads(path.read_text())
    return rows


def differences(rows: dict, texts: int) -> list[dict]:
    """Of every method, BLEU less the masked pilot's in eight passes, less its own draft's, and drafts less each other.

    Resampled in pairs: both methods wrote the same texts, which narrows the interval.
    """
    model, tokenizer = load_inverter(RUNS / "start")
    end = model.config.eos_token_id
    ids, _ = held_out_pairs(SETTINGS["pairs"], SETTINGS["max_sequence_length"], texts)
    originals, counts = decode_rows(tokenizer, ids, end), {}
    for variant in rows:
        folder = run_folder(variant, len(VARIANTS[variant]) - 1)
        for method, found in json.loads((folder / "texts.json").read_text()).items():
            if len(found) == len(originals):  # a variant scored with another --texts is no pair of the others
                counts[variant, method] = bleu_counts(found, originals)
    pairs = [(one, ("masked only", "masked, 8 passes")) for one in counts]
    pairs += [(one, (one[0], "draft")) for one in counts]
    drafts = [one for one in counts if one[1] == "draft"]
    pairs += [(drafts[i], drafts[j]) for i in range(len(drafts)) for j in range(i)]
    return [
        {"name": f"{', '.join(one)} less {', '.join(other)}", "BLEU": asdict(difference(counts[one], counts[other]))}
        for one, other in pairs
        if one != other and other in counts
    ]


def difference(ours: np.ndarray, theirs: np.ndarray, resamples: int = 1000) -> Score:
    """BLEU of one method less that of another, from the counts of the same texts (N, 10) each."""
    picks = np.random.default_rng(0).integers(len(ours), size=(resamples, len(ours)))
    gained = lambda rows: bleu_of_counts(ours[rows].sum(axis=0)) - bleu_of_counts(theirs[rows].sum(axis=0))  # noqa: E731
    low, high = np.percentile([gained(rows) for rows in picks], [2.5, 97.5])
    return Score(float(gained(slice(None))), float(low), float(high))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
