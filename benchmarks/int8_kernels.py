"""A linear layer in int8 by PyTorch's two APIs, and in float32: why int8_embinv.py stands on the older one.

    taskset -c 0 python benchmarks/int8_kernels.py --json benchmarks/results/int8_kernels.json

`now` is `Int8Linear`: one operator of the deprecated quantised tensors, which finds the range of the inputs and rounds
them within. `kept` is the product that PyTorch goes on to have, `onednn.qlinear_pointwise`: to the same 256 steps, but
its inputs are rounded by operators of their own, each of which reads and writes all of them. Shapes and rows are those
of the released checkpoint, as in linear_libraries.py. Times are of this thread alone, as others may work beside it.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from linear_libraries import ROWS, SHAPES
from result_file import result_file
from throughput import cpu_name
from torch import Tensor, nn

from modeling_embinv.data.files import write_json
from modeling_embinv.evaluation.report import markdown_table
from modeling_embinv.int8_embinv import WEIGHT_STEPS, Int8Linear
from modeling_embinv.linear_embinv import linear


class KeptLinear:
    """x (rows, in_features) → (rows, out_features) by oneDNN's product of plain integer tensors."""

    def __init__(self, layer: nn.Linear, rows: int):
        weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.scale = weight.abs().amax(dim=1) / WEIGHT_STEPS
        self.zero = torch.zeros(len(weight), dtype=torch.int32)
        rounded = (weight / self.scale[:, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, [rows, layer.in_features])

    def __call__(self, x: Tensor) -> Tensor:
        low, high = (bound.item() for bound in torch.aminmax(x))
        step = (max(high, 0.0) - min(low, 0.0)) / 255
        zero = round(-min(low, 0.0) / step)
        shifted = torch.add(torch.tensor(zero + 0.5), x, alpha=1 / step)  # the half makes cutting off a rounding
        return torch.ops.onednn.qlinear_pointwise(
            shifted.clamp_(0, 255).to(torch.uint8), step, zero, self.packed, self.scale, self.zero, self.bias,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip


def medians(calls: list[Callable], seconds: float) -> list[float]:
    """Milliseconds of this thread for each call; the calls take turns."""
    times, end = [[] for _ in calls], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, own in zip(calls, times, strict=True):
            start = time.thread_time_ns()
            call()
            own.append((time.thread_time_ns() - start) / 1e6)
    return [statistics.median(own) for own in times]


@torch.no_grad()
def row(rows: int, inputs: int, outputs: int, seconds: float) -> tuple[list[str], float]:
    """A line of the table, and how many times as long the kept API takes."""
    torch.manual_seed(0)
    layer, x = nn.Linear(inputs, outputs), torch.randn(rows, inputs)
    now, kept = Int8Linear(layer), KeptLinear(layer, rows)
    expected = linear(x, layer.weight, layer.bias)
    errors = [float((call(x) - expected).abs().mean() / expected.std()) for call in (now, kept)]
    times = medians([lambda: linear(x, layer.weight, layer.bias), lambda: now(x), lambda: kept(x)], seconds)
    cells = [str(rows), f"{inputs} → {outputs:,}", *(f"{ms:.3f}" for ms in times), f"{times[2] / times[1]:.2f}"]
    return [*cells, *(f"{error:.2%}" for error in errors)], times[2] / times[1]


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4, help="for each line, but no fewer than 5 calls")
    parser.add_argument("--json", type=result_file, help="write the result there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{cpu_name()}, 1 thread, PyTorch {torch.__version__}, milliseconds\n")
    found = [row(rows, *shape, options.seconds) for rows in ROWS for shape in SHAPES]
    head = ["rows", "inputs → outputs", "float32", "now", "kept", "kept / now", "error, now", "error, kept"]
    table, times_as_long = markdown_table([head, *(line for line, _ in found)]), [ratio for _, ratio in found]
    print(f"{table}\n\nkept / now: median {statistics.median(times_as_long):.2f}")
    if options.json:
        result = {"cpu": cpu_name(), "torch": torch.__version__, "kept_over_now": statistics.median(times_as_long)}
        write_json(options.json, result | {"table": table})


if __name__ == "__main__":
    main()
