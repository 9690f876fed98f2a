"""A linear layer by MKL, PyTorch's choice in float32, and by oneDNN, with weights as they are and packed beforehand.

    python benchmarks/linear_libraries.py

The shapes are those of the released checkpoint's layers, at the rows of 1, 8 and 64 texts; a second table has whole
inversions. Where oneDNN is ahead on a processor that modeling_embinv/linear_embinv.py leaves to PyTorch, tell us.
"""

import argparse
import statistics
import time

import torch
from throughput import cpu_name, unit_vectors
from torch.nn import functional as F

from modeling_embinv import linear_embinv
from modeling_embinv.allocator import keep_large_blocks
from modeling_embinv.backbone import load_inverter
from modeling_embinv.cli_options import CHECKPOINT
from modeling_embinv.report import markdown_table

SHAPES = [(384, 384), (384, 1536), (1536, 384), (384, 30_522)]
ROWS = [17, 33, 264, 2112]


def seconds(calls: list, least: float) -> list[float]:
    """Medians; the calls take turns for `least` seconds, so that what else the machine does hits all alike."""
    times, deadline = [[] for _ in calls], time.perf_counter() + least
    for call in calls * 2:
        call()
    while len(times[0]) < 5 or time.perf_counter() < deadline:
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


@torch.no_grad()
def row(rows: int, inputs: int, outputs: int, least: float) -> list[str]:
    """A line of the table, in GFLOP/s."""
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    by_onednn = torch.ops.mkldnn._linear_pointwise
    calls = [lambda: F.linear(x, weight, bias)]
    calls += [lambda w=w: by_onednn(x, w, bias, "none", [], "") for w in (weight, packed)]
    speeds = [2 * rows * inputs * outputs / 1e9 / time for time in seconds(calls, least)]
    return [str(rows), f"{inputs} → {outputs:,}", *(f"{speed:.0f}" for speed in speeds)]


def inversion(model, batch_size: int, least: float) -> list[str]:
    """A line of the second table: milliseconds of `generate`."""
    vectors = unit_vectors(batch_size, model.config.embedding_dim)

    def generate(by_onednn: bool):
        linear_embinv.PREFERS_ONEDNN = by_onednn
        model.generate(vectors)

    mkl, onednn = seconds([lambda: generate(False), lambda: generate(True)], least)
    return [str(batch_size), f"{mkl * 1e3:.0f}", f"{onednn * 1e3:.0f}", f"{mkl / onednn:.2f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each line")
    least = parser.parse_args().seconds
    keep_large_blocks()
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, GFLOP/s\n")
    head = ["rows", "inputs → outputs", "MKL", "oneDNN", "oneDNN, packed"]
    print(markdown_table([head, *(row(rows, *shape, least) for rows in ROWS for shape in SHAPES)]))
    model = load_inverter(str(CHECKPOINT))[0].eval()
    head = ["texts", "ms a call, MKL", "oneDNN", "times as fast"]
    print(f"\n{markdown_table([head, *(inversion(model, count, 5 * least) for count in (1, 8, 64))])}")
