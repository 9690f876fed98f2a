"""How fast training and inversion run, as a share of what their matrix products alone take.

    python benchmarks/throughput.py                     # a model of MiniLM's shape with random weights
    python benchmarks/throughput.py --model runs/minilm_cpu/best --json throughput.json

A training step is `Run.update` (modeling_embinv.training.loop) on a random batch; an inversion is `generate` with the
confidence strategy. Each is run once while every matrix product that it dispatches is recorded. Then the call and the
bare products, on preallocated contiguous operands of the same shapes, take turns on the clock, and medians are
compared: 100 % would mean that nothing but matrix products costs time. See benchmarks/README.md.
"""

import argparse
import copy
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from matrix_products import BareProducts, print_products, record
from operator_times import print_profile, profile_table, where_time_goes
from result_file import result_file
from torch import Tensor

from modeling_embinv import EmbInvConfig, EmbInvForMaskedDiffusion
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.files import write_json
from modeling_embinv.data.flags import number
from modeling_embinv.diffusion_embinv import NoiseSchedule
from modeling_embinv.evaluation.report import markdown_table
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.loop import Run
from modeling_embinv.training.optimizers import new_optimizers
from modeling_embinv.training.validation import ValidationSet

MINILM = dict(
    model_type="bert", vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
    intermediate_size=1536, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip


class TrainingStep:
    """One optimizer update of training.py; always step 0, so every call masks the same positions."""

    def __init__(self, args: argparse.Namespace):
        model = build_model(args).train()
        config = TrainingConfig(
            output_dir="unused", encoder="unused", pairs="unused", backbone="unused", max_sequence_length=args.length,
            batch_size=args.train_batch_size, full_mask_share=0.1, condition_dropout=0.1, loss_weight="none",
        )  # fmt: skip
        accelerator = Accelerator(
            cpu=args.device.type == "cpu", mixed_precision="bf16" if args.dtype == torch.bfloat16 else "no"
        )
        self.input_ids = torch.randint(model.config.vocab_size, (args.train_batch_size, args.length))
        self.embedding = unit_vectors(args.train_batch_size, model.config.embedding_dim)
        model, *optimizers = accelerator.prepare(model, *new_optimizers(model, config.rates()))
        schedulers = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: 1.0) for one in optimizers]
        self.run = Run(
            config, accelerator=accelerator, model=model, tokenizer=None, optimizers=optimizers, schedulers=schedulers,
            encoder=SimpleNamespace(config=EncoderConfig("unused")), batches=self,
            held_out=ValidationSet(self.input_ids, self.embedding, 0, NoiseSchedule()),
        )  # fmt: skip

    def batch(self, index: int, batch_size: int, canvas: int) -> tuple[Tensor, Tensor]:
        """What `Run` asks its data for."""
        return self.input_ids, self.embedding

    def __call__(self):
        self.run.update(0)


def inversion(model: EmbInvForMaskedDiffusion, batch_size: int, args: argparse.Namespace) -> Callable:
    """A call of `generate`; it is greedy, so every call leaves the same positions masked after each pass."""
    embeddings = unit_vectors(batch_size, model.config.embedding_dim)
    return lambda: model.generate(embeddings, strategy="confidence", num_steps=args.steps, max_length=args.length)


def build_model(args: argparse.Namespace) -> EmbInvForMaskedDiffusion:
    """The model of `--model`, or one of MiniLM's shape with random weights, in float32."""
    torch.manual_seed(0)
    attention = {"attn_implementation": args.attn_implementation}
    if args.model is not None:
        model = EmbInvForMaskedDiffusion.from_pretrained(args.model, dtype=torch.float32, **attention)
    else:
        config = EmbInvConfig(
            backbone_config=MINILM | {"vocab_size": args.vocab_size}, vocab_size=args.vocab_size,
            max_sequence_length=args.length, num_condition_tokens=1, **attention,
        )  # fmt: skip
        model = EmbInvForMaskedDiffusion(config)
    if args.compile:
        model.trunk.compile(dynamic=False)
    return model.to(args.device)


def unit_vectors(count: int, dim: int) -> Tensor:
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(0))
    return vectors / vectors.norm(dim=1, keepdim=True)


def milliseconds(call: Callable, device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def take_turns(calls: list[Callable], args: argparse.Namespace) -> list[list[float]]:
    """Milliseconds of each call, A B A B …, so that what else the machine does hits all alike."""
    for call in calls * 2:
        call()
    times, deadline = [[] for _ in calls], time.perf_counter() + args.seconds
    while len(times[0]) < args.repeats and (len(times[0]) < 3 or time.perf_counter() < deadline):
        for call, own in zip(calls, times, strict=True):
            own.append(milliseconds(call, args.device))
    return times


def measure(
    what: str, batch_size: int, call: Callable, args: argparse.Namespace, in_float: Callable | None = None
) -> dict:
    """One row of the table; the products are those of `in_float`, where `call` hides its own."""
    products = record(in_float or call)
    real, limit = take_turns([call, BareProducts(products, args.dtype, args.device, args.layout)], args)
    real_ms, limit_ms, flops = statistics.median(real), statistics.median(limit), sum(p.flops for p in products)
    return {
        "what": what,
        "batch_size": batch_size,
        "sequences_per_second": batch_size / real_ms * 1e3,
        "ms": real_ms,
        "gflop_per_sequence": flops / batch_size / 1e9,
        "gflop_per_second": flops / real_ms / 1e6,
        "limit_ms": limit_ms,
        "share_of_limit": limit_ms / real_ms,
        "repeats": len(real),
        "products": [{**asdict(p), "count": count} for p, count in Counter(products).items()],
    }


def machine(args: argparse.Namespace) -> dict:
    """What the numbers depend on besides the code."""
    if args.device.type == "cuda":
        name = torch.cuda.get_device_name(args.device)
        capability = "sm_{}{}".format(*torch.cuda.get_device_capability(args.device))
    else:
        name, capability = cpu_name(), torch.backends.cpu.get_cpu_capability()
    return {
        "device": name,
        "capability": capability,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "dtype": str(args.dtype).removeprefix("torch."),
        "attention": args.attn_implementation,
        "compile": args.compile,
        "model": args.model or "random weights of MiniLM's shape",
        "length": args.length,
        "steps": args.steps,
        "layout": args.layout,
        "keep_large_blocks": args.keep_large_blocks,
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: list[dict]) -> str:
    """Markdown, without the shapes of the products."""
    lines = [["", "batch", "sequences a second", "ms a call", "GFLOP/s", "share of the limit"]]
    for row in rows:
        speed = [f"{row['sequences_per_second']:.1f}", f"{row['ms']:,.0f}", f"{row['gflop_per_second']:.0f}"]
        lines.append([row["what"], str(row["batch_size"]), *speed, f"{row['share_of_limit']:.0%}"])
    return markdown_table(lines)


def print_row(row: dict):
    print(
        f"{row['what']:9} {row['batch_size']:5d} {row['sequences_per_second']:9.1f} {row['ms']:10.2f}"
        f" {row['gflop_per_sequence']:10.3f} {row['gflop_per_second']:10.1f} {row['limit_ms']:10.2f}"
        f" {row['share_of_limit']:6.1%}",
        flush=True,
    )


def benchmark(args: argparse.Namespace) -> dict:
    """Measure, print as it goes, and return all the numbers."""
    report = {"machine": machine(args), "rows": [], "profiles": {}}
    print("  ".join(f"{key}: {value}" for key, value in report["machine"].items()))
    print(
        f"\n{'what':9} {'batch':>5} {'seq/s':>9} {'ms/call':>10} {'GFLOP/seq':>10} {'GFLOP/s':>10}"
        f" {'limit ms':>10} {'share':>6}"
    )
    if args.keep_large_blocks:
        keep_large_blocks()
    model = build_model(args).to(args.dtype).eval()
    for batch_size in sorted(args.batch_sizes):
        invert = inversion(model, batch_size, args)
        report["rows"].append(measure("inversion", batch_size, invert, args))
        print_row(report["rows"][-1])
    packed = copy.deepcopy(model).to_int8() if args.int8 else None
    for batch_size in sorted(args.batch_sizes) if args.int8 else ():
        in_int8, in_float = (inversion(which, batch_size, args) for which in (packed, model))
        report["rows"].append(measure("int8", batch_size, in_int8, args, in_float))
        print_row(report["rows"][-1])
    report["profiles"]["inversion"] = where_time_goes(invert, args.device)
    del model, invert

    keep_large_blocks()  # as training does
    step = TrainingStep(args)
    report["rows"].append(measure("training", args.train_batch_size, step, args))
    print_row(report["rows"][-1])
    report["profiles"]["training"] = where_time_goes(step, args.device)

    largest = {row["what"]: row for row in report["rows"]}
    for what, groups in report["profiles"].items():
        row = largest[what]
        print_products(row)
        print_profile(f"{what}, batch {row['batch_size']},", groups)
    report["table"] = f"{table(report['rows'])}\n\n{profile_table(report['profiles'])}"
    return report


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    count = number(int, 1, 10**9)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or Hub id of a checkpoint; default: random weights of MiniLM's shape")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="training uses autocast")
    parser.add_argument("--length", type=count, default=32, help="L, tokens of the canvas")
    parser.add_argument("--vocab_size", type=count, default=MINILM["vocab_size"], help="of random weights")
    parser.add_argument("--steps", type=count, default=8, help="forward passes of an inversion")
    parser.add_argument("--batch_sizes", type=count, nargs="+", default=[1, 8, 64], help="of inversion")
    parser.add_argument("--train_batch_size", type=count, default=128)
    parser.add_argument("--repeats", type=count, default=30, help="timed calls a row at most")
    parser.add_argument(
        "--seconds", type=number(float, 0, 10**9), default=30, help="a row stops after so long, but not before 3 calls"
    )
    parser.add_argument("--threads", type=count, help="default: PyTorch's own choice")
    parser.add_argument("--attn_implementation", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--compile", action="store_true", help="compile the trunk")
    parser.add_argument("--int8", action="store_true", help="inversion in int8 too, against the limit of float32")
    parser.add_argument("--keep_large_blocks", action="store_true", help="before inversion too: training always does")
    parser.add_argument(
        "--layout", choices=("contiguous", "recorded"), default="contiguous", help="of the bare products' operands"
    )
    parser.add_argument("--json", type=result_file, help="file that receives the same numbers")
    args = parser.parse_args(arguments)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.device, args.dtype = torch.device(args.device), getattr(torch, args.dtype)
    return args


def main(arguments: list[str] | None = None) -> dict:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    report = benchmark(args)
    if args.json:
        write_json(args.json, report)
    return report


if __name__ == "__main__":
    main()
