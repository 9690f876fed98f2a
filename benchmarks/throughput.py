"""How fast training and inversion run, as a share of what their matrix products alone take.

    python benchmarks/throughput.py                     # a model of MiniLM's shape with random weights
    python benchmarks/throughput.py --model runs/minilm_cpu/best --json throughput.json

A training step is `Run.update` of modeling_embinv/training.py on one random batch; an inversion is `generate` with the
confidence strategy. Each is run once while every matrix product that it dispatches is recorded. Then the call and the
bare products, on preallocated contiguous operands of the same shapes, take turns on the clock, and medians are
compared: 100 % would mean that nothing but matrix products costs time. See benchmarks/README.md.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from modeling_embinv import EmbInvConfig, EmbInvForMaskedDiffusion
from modeling_embinv.allocator import keep_large_blocks
from modeling_embinv.report import markdown_table
from modeling_embinv.training_config import TrainingConfig
from modeling_embinv.training_run import Run, new_optimizer

MINILM = dict(
    model_type="bert", vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
    intermediate_size=1536, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip

# operators by the beginning of their names; the longest one counts
OPERATORS = {
    "matrix products": ("mm", "addmm", "linear"),
    "attention": ("bmm", "baddbmm"),
    "normalisation and pointwise": (
        "native_layer_norm", "add", "sub", "mul", "div", "addcmul", "gelu", "tanh", "sum", "where",
        "triton_", "## Call CompiledFxGraph",
    ),
    "softmax and loss": ("_softmax", "_log_softmax", "softmax", "log_softmax", "max", "argmax", "logsumexp"),
    "gather and scatter": ("index", "_index", "gather", "scatter", "embedding", "nonzero"),
    "optimizer, clipping, EMA": ("lerp", "linalg_vector_norm"),
    "copies and other": (),
}  # fmt: skip
# what runs inside one of these is part of it, matrix products excepted
SCOPES = {
    "scaled_dot_product": "attention",
    "_ChunkedCrossEntropy": "softmax and loss",
    "Optimizer.": "optimizer, clipping, EMA",
    "_foreach_": "optimizer, clipping, EMA",
}


@dataclass(frozen=True)
class Product:
    """`batch` matrix products (m, k) · (k, n); `layout` has an N, or a T for transposed in memory, per operand."""

    batch: int
    m: int
    k: int
    n: int
    layout: str = "NN"

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.m * self.k * self.n


class ProductRecorder(TorchDispatchMode):
    """Lists the matrix products that run inside its `with` block, in order."""

    def __init__(self):
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += products_of(func.overloadpacket, args)
        return func(*args, **(kwargs or {}))


def products_of(operator, args: tuple) -> list[Product]:
    """The matrix products that one call of an ATen operator stands for; most operators stand for none.

    Attention is two batched products, and backward another two for each of these: scores that a fused kernel
    computes again are its own choice and not counted.

    Raises:
        NotImplementedError: for an operator that PyTorch's own counter counts and this one does not know.
    """
    name = operator.__name__
    if name in ("mm", "bmm"):
        return [_product(*args[:2])]
    if name in ("addmm", "addmm_", "baddbmm", "baddbmm_"):
        return [_product(*args[1:3])]
    if name.startswith("_scaled_dot_product"):
        backward = name.endswith("_backward")
        query, key, value = args[1:4] if backward else args[:3]
        heads, length, width = query.shape[0] * query.shape[1], query.shape[2], query.shape[3]
        scores = Product(heads, length, width, key.shape[2])
        mixture = Product(heads, length, key.shape[2], value.shape[3])
        return [scores, mixture] * (2 if backward else 1)
    if operator in flop_registry:
        raise NotImplementedError(f"{operator} holds matrix products that benchmarks/throughput.py cannot list.")
    return []


def _product(left: Tensor, right: Tensor) -> Product:
    layout = "".join("NT"[not x.is_contiguous() and x.mT.is_contiguous()] for x in (left, right))
    return Product(left.shape[0] if left.ndim == 3 else 1, *left.shape[-2:], right.shape[-1], layout)


class BareProducts:
    """Runs products one after the other and nothing else, on operands and results that are allocated once.

    All of them share the memory of the largest, so that ever new shapes do not fill the machine.
    """

    def __init__(self, products: list[Product], dtype: torch.dtype, device: torch.device, layout: str):
        sizes = [(p.batch * p.m * p.k, p.batch * p.k * p.n, p.batch * p.m * p.n) for p in products]
        left, right, out = (torch.empty(max(sizes), dtype=dtype, device=device) for sizes in zip(*sizes, strict=True))
        left.normal_()
        right.normal_()
        self.calls = []
        for p in products:
            stored = p.layout if layout == "recorded" else "NN"
            operands = _matrix(left, p.batch, p.m, p.k, stored[0]), _matrix(right, p.batch, p.k, p.n, stored[1])
            self.calls.append((torch.mm if p.batch == 1 else torch.bmm, *operands, _matrix(out, p.batch, p.m, p.n)))

    @torch.no_grad()
    def __call__(self):
        for function, left, right, out in self.calls:
            function(left, right, out=out)


def _matrix(memory: Tensor, batch: int, rows: int, columns: int, stored: str = "N") -> Tensor:
    flat = memory[: batch * rows * columns]
    matrix = flat.view(batch, columns, rows).mT if stored == "T" else flat.view(batch, rows, columns)
    return matrix[0] if batch == 1 else matrix


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
        optimizer = new_optimizer(model, config)
        self.input_ids = torch.randint(model.config.vocab_size, (args.train_batch_size, args.length))
        self.embedding = unit_vectors(args.train_batch_size, model.config.embedding_dim)
        model, optimizer = accelerator.prepare(model, optimizer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        self.run = Run(config, accelerator, model, None, None, optimizer, scheduler, batches=self, held_out=None)

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


def record(call: Callable) -> list[Product]:
    """The matrix products of one call; compiled parts run as written meanwhile."""
    with torch.compiler.set_stance("force_eager"), ProductRecorder() as recorder:
        call()
    return recorder.products


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


def where_time_goes(call: Callable, args: argparse.Namespace, calls: int = 3) -> dict[str, dict]:
    """Share of all operators' own time by group, and the operators that take most of it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if args.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(calls):
            call()
    spent = defaultdict(Counter)
    for event in profile.events():
        if event.device_type == DeviceType.CPU:
            own = event.self_device_time_total if args.device.type == "cuda" else event.self_cpu_time_total
            spent[group_of(event)][event.name.removeprefix("aten::")] += own
    total = sum(own.total() for own in spent.values())
    return {
        group: {
            "share": spent[group].total() / total,
            "operators": {name: own / total for name, own in spent[group].most_common(5) if own},
        }
        for group in OPERATORS
    }


def group_of(event) -> str:
    """Products by their own name, others by the scope that they run in, else by their own name."""
    name = event.name.removeprefix("aten::")
    matches = [(word, group) for group, words in OPERATORS.items() for word in words if name.startswith(word)]
    _, group = max(matches, key=lambda match: len(match[0]), default=("", "copies and other"))
    if group == "matrix products":
        return group
    while event is not None:
        for scope, scope_group in SCOPES.items():
            if scope in event.name:
                return scope_group
        event = event.cpu_parent
    return group


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


def profile_table(profiles: dict[str, dict]) -> str:
    """Markdown: the share of the time that each group of operators takes."""
    lines = [["where the time goes, largest batch", *profiles]]
    for group in OPERATORS:
        lines.append([group, *(f"{groups[group]['share']:.0%}" for groups in profiles.values())])
    return markdown_table(lines)


def print_row(row: dict):
    print(
        f"{row['what']:9} {row['batch_size']:5d} {row['sequences_per_second']:9.1f} {row['ms']:10.2f}"
        f" {row['gflop_per_sequence']:10.3f} {row['gflop_per_second']:10.1f} {row['limit_ms']:10.2f}"
        f" {row['share_of_limit']:6.1%}",
        flush=True,
    )


def print_products(row: dict, least: float = 0.02):
    """The shapes that hold at least the share `least` of a row's operations."""
    operations = [(p, 2 * p["batch"] * p["m"] * p["k"] * p["n"] * p["count"]) for p in row["products"]]
    total = sum(flops for _, flops in operations)
    print(
        f"\nmatrix products of {row['what']}, batch {row['batch_size']}: {total / 1e9:.2f} GFLOP; from {least:.0%} up"
    )
    print(f"{'count':>6} {'batch':>6} {'m':>7} {'k':>7} {'n':>7} layout {'GFLOP':>9} {'share':>6}")
    for p, flops in sorted(operations, key=lambda pair: -pair[1]):
        if flops >= least * total:
            sizes = f"{p['count']:6d} {p['batch']:6d} {p['m']:7d} {p['k']:7d} {p['n']:7d} {p['layout']:>6}"
            print(f"{sizes} {flops / 1e9:9.2f} {flops / total:6.1%}")


def print_profile(title: str, groups: dict[str, dict]):
    print(f"\nwhere the time of {title} goes")
    for group, spent in groups.items():
        operators = ", ".join(f"{name} {share:.1%}" for name, share in spent["operators"].items() if share >= 0.001)
        print(f"{group:28} {spent['share']:6.1%}  {operators}")


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
    report["profiles"]["inversion"] = where_time_goes(invert, args)
    del model, invert

    keep_large_blocks()  # as training does
    step = TrainingStep(args)
    report["rows"].append(measure("training", args.train_batch_size, step, args))
    print_row(report["rows"][-1])
    report["profiles"]["training"] = where_time_goes(step, args)

    largest = {row["what"]: row for row in report["rows"]}
    for what, groups in report["profiles"].items():
        row = largest[what]
        print_products(row)
        print_profile(f"{what}, batch {row['batch_size']},", groups)
    report["table"] = f"{table(report['rows'])}\n\n{profile_table(report['profiles'])}"
    return report


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or Hub id of a checkpoint; default: random weights of MiniLM's shape")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="training uses autocast")
    parser.add_argument("--length", type=int, default=32, help="L, tokens of the canvas")
    parser.add_argument("--vocab_size", type=int, default=MINILM["vocab_size"], help="of random weights")
    parser.add_argument("--steps", type=int, default=8, help="forward passes of an inversion")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 64], help="of inversion")
    parser.add_argument("--train_batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30, help="timed calls a row at most")
    parser.add_argument("--seconds", type=float, default=30, help="a row stops after so long, but not before 3 calls")
    parser.add_argument("--threads", type=int, help="default: PyTorch's own choice")
    parser.add_argument("--attn_implementation", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--compile", action="store_true", help="compile the trunk")
    parser.add_argument("--int8", action="store_true", help="inversion in int8 too, against the limit of float32")
    parser.add_argument("--keep_large_blocks", action="store_true", help="before inversion too: training always does")
    parser.add_argument(
        "--layout", choices=("contiguous", "recorded"), default="contiguous", help="of the bare products' operands"
    )
    parser.add_argument("--json", type=Path, help="file that receives the same numbers")
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
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


if __name__ == "__main__":
    main()
