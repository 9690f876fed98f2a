"""An autoregressive decoder and this project's, trained alike: the same data, start and operations; quality and speed.

    python benchmarks/vs_autoregressive.py --json vs_autoregressive.json     # two hours on two cores, resumable

Both start from the encoder's own layers and train on the pairs of `configs/minilm_cpu.yaml` until each has spent the
same floating-point operations, warm-up included. Then both read the same held-out texts: the autoregressive one
greedily and with four beams, by transformers' `generate` with its KV cache; ours in 4, 8 and 16 passes. Last, each
offers four texts, of which the encoder picks the one whose vector is closest.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch
from autoregressive import AutoregressiveInverter
from result_file import result_file
from run_folder import begin_run
from torch.nn.functional import cosine_similarity
from tqdm.auto import tqdm

from modeling_embinv.data.batches import PairBatches, held_out_pairs
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.noise import noise_batch
from modeling_embinv.data.pairs import load_pairs
from modeling_embinv.diffusion_embinv import text_positions
from modeling_embinv.evaluation.held_out import HeldOut, Recovered, Score
from modeling_embinv.evaluation.report import cells, markdown_table
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import generator_for, keep_large_blocks
from modeling_embinv.texts_embinv import decode_rows
from modeling_embinv.training.arguments import parse_training_config
from modeling_embinv.training.assemble import train
from modeling_embinv.training.bag_of_words import bag_of_words_loss
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.flops import operation_counter, training_flops
from modeling_embinv.training.optimizers import new_optimizers

CONFIG = "configs/minilm_cpu.yaml"
SAVE_STEPS = 100
# on the clock, of every method
TURNS = 3


def train_ours(options) -> Path:
    """Our run; its folder."""
    flags = ["--max_steps", options.updates, "--output_dir", options.out / "ours", "--eval_steps", 10**6]
    flags += ["--mixed_precision", "float32"]  # as the decoder
    config = parse_training_config([CONFIG, *map(str, flags)])
    done = Path(config.output_dir) / "last"
    return done if done.exists() else train(config)


def operations(call) -> float:
    """Floating-point operations of one call."""
    with torch.compiler.set_stance("force_eager"), operation_counter() as counter:
        call()
    return counter.get_total_flops()


def our_operations(config: TrainingConfig, folder: Path, batches: PairBatches) -> float:
    """Operations of our whole run, its bag-of-words warm-up included."""
    model, _ = load_inverter(folder)
    ids, embedding = batches.batch(0, config.batch_size, config.max_sequence_length)
    batch = noise_batch(ids, embedding, config.noise_of(model), generator_for(0))
    words = batches.batch(0, config.bag_of_words_batch_size, config.max_sequence_length)
    warm_up = operations(lambda: bag_of_words_loss(model, *words).backward())
    # PyTorch's counter misses the products that our loss makes in place
    return config.max_steps * training_flops(model, *ids.shape, len(batch.positions)) + (
        config.bag_of_words_steps * warm_up
    )


def train_theirs(
    model: AutoregressiveInverter, batches: PairBatches, config: TrainingConfig, budget: float, out: Path
):
    """AdamW at our settings until `budget` operations are spent; returns the number of updates."""
    batch = lambda step: batches.batch(step, config.batch_size, config.max_sequence_length)  # noqa: E731
    updates = round(budget / operations(lambda: model.loss(*batch(0)).backward()))
    config.max_steps = updates
    if config.compile:  # as ours does
        model.decoder.bert.compile(dynamic=False)
    rates = config.rates()
    (optimizer,) = new_optimizers(model, rates)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rates.factor)
    path, first = out / "autoregressive.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        for part, values in zip((model, optimizer, scheduler), state["parts"], strict=True):
            part.load_state_dict(values)
        first = state["step"]
    bar = tqdm(range(first, updates), initial=first, total=updates, desc="autoregressive", mininterval=10)
    for step in bar:
        loss = model.train().loss(*batch(step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % SAVE_STEPS == 0 or step + 1 == updates:
            temporary = path.with_suffix(".tmp")
            torch.save({"step": step + 1, "parts": [p.state_dict() for p in (model, optimizer, scheduler)]}, temporary)
            temporary.replace(path)
    return updates


def closest(ids: torch.Tensor, vectors: torch.Tensor, embed) -> torch.Tensor:
    """Of K texts of each vector, ids (N, K, L), the one (N, L) whose vector by `embed`, ids → (…, D), is closest."""
    found = embed(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
    best = cosine_similarity(found, vectors[:, None], dim=-1).argmax(dim=1)
    return ids[torch.arange(len(ids)), best]


def methods(ours: HeldOut, theirs: AutoregressiveInverter) -> dict:
    """name → vectors (B, D) → ids (B, L)."""
    end, encode = ours.end, ours.encoder.encode
    check = {"num_candidates": 4, "num_drafts": 0, "feedback": encode, "tokenizer": ours.tokenizer}

    def written(vectors, **settings):
        sequences = ours.model.generate(vectors, generator=generator_for(0), **settings).sequences
        return sequences.masked_fill(~text_positions(sequences, end), end)

    def picked(vectors):
        beams = theirs.generate(vectors, num_beams=4, num_texts=4).unflatten(0, (-1, 4))
        return closest(beams, vectors, lambda ids: encode(decode_rows(ours.tokenizer, ids, end)))

    return {
        "masked diffusion, 4 passes": lambda vectors: written(vectors, num_steps=4),
        "masked diffusion, 8 passes": lambda vectors: written(vectors, num_steps=8),
        "masked diffusion, 16 passes": lambda vectors: written(vectors, num_steps=16),
        "autoregressive, greedy": theirs.generate,
        "autoregressive, 4 beams": lambda vectors: theirs.generate(vectors, num_beams=4),
        "masked diffusion, 8 passes, best of 4": lambda vectors: written(vectors, num_steps=8, **check),
        "autoregressive, best of 4 beams": picked,
    }


def seconds_a_text(call, vectors: torch.Tensor, batch_size: int) -> float:
    start = time.perf_counter()
    for part in vectors.split(batch_size):
        call(part)
    return (time.perf_counter() - start) / len(vectors)


def compare(ours: HeldOut, theirs: AutoregressiveInverter, batch_sizes: list[int]) -> list[dict]:
    """Scores of every method, and median seconds a text at each batch size; methods take turns on the clock."""
    rows, calls = {}, methods(ours, theirs)
    for name, call in calls.items():
        ids = torch.cat([call(part) for part in ours.embeddings.split(max(batch_sizes))])
        measures = ours.measure(Recovered(ids, decode_rows(ours.tokenizer, ids, ours.end)))
        counted = ours.embeddings[:64]
        gflop = operations(lambda call=call, counted=counted: call(counted)) / len(counted) / 1e9
        scores = {key: asdict(value) for key, value in measures.scores().items()}
        rows[name] = {"name": name, "gflop_a_text": gflop, "seconds_a_text": {}, "scores": scores}
        print(json.dumps({"name": name, **measures.means()}), flush=True)
    for size in batch_sizes:
        few = ours.embeddings[: max(16, 2 * size)]
        turns = [{name: seconds_a_text(call, few, size) for name, call in calls.items()} for _ in range(TURNS)]
        for name, row in rows.items():
            row["seconds_a_text"][size] = statistics.median(turn[name] for turn in turns)
    return list(rows.values())


def table(rows: list[dict]) -> str:
    """Markdown: what a text costs at each batch size, and its scores with their intervals."""
    sizes, scores = list(rows[0]["seconds_a_text"]), ["token accuracy", "token F1", "exact", "BLEU", "cosine"]
    heads = ["", "GFLOP a text", *(f"ms a text, batch {size}" for size in sizes), *scores]
    lines = [heads]
    for row in rows:
        cost = [f"{row['gflop_a_text']:.1f}", *(f"{1e3 * row['seconds_a_text'][size]:.0f}" for size in sizes)]
        found = {name: Score(**score) for name, score in row["scores"].items()}
        lines.append([row["name"], *cost, *cells(found, scores)])
    return markdown_table(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1800, help="of ours; the other trains as many operations")
    parser.add_argument("--out", type=Path, default=Path("runs/vs_autoregressive"))
    parser.add_argument("--texts", type=int, default=400, help="validation texts")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--json", type=result_file, help="write the results there")
    options = parser.parse_args()
    begin_run(options.out, {"updates": options.updates})
    keep_large_blocks()
    torch.manual_seed(0)
    folder = train_ours(options)
    config = parse_training_config([CONFIG, "--max_steps", str(options.updates)])
    model, tokenizer = load_inverter(folder)
    encoder, end = load_encoder(EncoderConfig.from_yaml(config.encoder)), model.config.eos_token_id
    batches = PairBatches(load_pairs(config.pairs, "train"), end, config.seed)
    budget = our_operations(config, folder, batches)
    theirs = AutoregressiveInverter.from_encoder(encoder.path, model.config)
    updates = train_theirs(theirs, batches, config, budget, options.out)
    ids, embeddings = held_out_pairs(config.pairs, config.max_sequence_length, options.texts)
    held_out = HeldOut(model.eval(), tokenizer, encoder, ids, embeddings, decode_rows(tokenizer, ids, end))
    with torch.compiler.set_stance("force_eager"):
        rows = compare(held_out, theirs.eval(), options.batch_sizes)
    updates = {"ours": options.updates, "theirs": updates}
    result = {"teraflop": budget / 1e12, "updates": updates, "rows": rows, "table": table(rows)}
    print(result["table"])
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
