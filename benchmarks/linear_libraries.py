"""A linear layer by MKL, PyTorch's choice in float32, and by oneDNN, with weights as they are and packed beforehand.

    python benchmarks/linear_libraries.py --json benchmarks/results/linear_libraries.json

The shapes are those of the released checkpoint's layers, at the rows of 1, 8 and 64 texts; a second table has whole
inversions. Where oneDNN is ahead on a processor that modeling_embinv/linear_embinv.py leaves to PyTorch, tell us.
"""

import argparse
import statistics

import torch
from result_file import result_file
from throughput import cpu_name, take_turns, unit_vectors
from torch.nn import functional as F

from modeling_embinv import linear_embinv
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.data.files import write_json
from modeling_embinv.evaluation.report import markdown_table
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import keep_large_blocks

SHAPES = [(384, 384), (384, 1536), (1536, 384), (384, 30_522)]
ROWS = [17, 33, 264, 2112]


@torch.no_grad()
def row(rows: int, inputs: int, outputs: int, args: argparse.Namespace) -> list[str]:
    """A line of the table, in GFLOP/s."""
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    by_onednn = torch.ops.mkldnn._linear_pointwise
    calls = [lambda: F.linear(x, weight, bias)]
    calls += [lambda w=w: by_onednn(x, w, bias, "none", [], "") for w in (weight, packed)]
    times = map(statistics.median, take_turns(calls, args))
    speeds = [2 * rows * inputs * outputs / 1e6 / ms for ms in times]
    return [str(rows), f"{inputs} → {outputs:,}", *(f"{speed:.0f}" for speed in speeds)]


def inversion(model, batch_size: int, args: argparse.Namespace) -> list[str]:
    """A line of the second table: milliseconds of `generate`."""
    vectors = unit_vectors(batch_size, model.config.embedding_dim)

    def generate(by_onednn: bool):
        linear_embinv.PREFERS_ONEDNN = by_onednn
        model.generate(vectors)

    mkl, onednn = map(statistics.median, take_turns([lambda: generate(False), lambda: generate(True)], args))
    return [str(batch_size), f"{mkl:.0f}", f"{onednn:.0f}", f"{mkl / onednn:.2f}"]


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="for each line, but no fewer than 3 calls")
    parser.add_argument("--repeats", type=int, default=10_000, help="timed calls a line at most")
    parser.add_argument("--json", type=result_file, help="write the result there")
    args = parser.parse_args(arguments)
    args.device = torch.device("cpu")
    keep_large_blocks()
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, GFLOP/s\n")
    head = ["rows", "inputs → outputs", "MKL", "oneDNN", "oneDNN, packed"]
    layers = markdown_table([head, *(row(rows, *shape, args) for rows in ROWS for shape in SHAPES)])
    print(layers)
    model = load_inverter(str(CHECKPOINT))[0].eval()
    head = ["texts", "ms a call, MKL", "oneDNN", "times as fast"]
    inversions = markdown_table([head, *(inversion(model, count, args) for count in (1, 8, 64))])
    print(f"\n{inversions}")
    if args.json:
        machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        write_json(args.json, machine | {"table": f"{layers}\n\n{inversions}"})


if __name__ == "__main__":
    main()
