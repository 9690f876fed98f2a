"""What another process on the machine costs: PyTorch's threads wait for each other, and take the processor meanwhile.

    python benchmarks/busy_machine.py
    python benchmarks/busy_machine.py --json benchmarks/results/busy_machine.json

The released checkpoint inverts vectors alone and beside a process that computes, with the threads as PyTorch has them,
with threads that sleep while they wait, and with one thread. Each has a process of its own, as OpenMP reads its
settings when it is loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from result_file import result_file
from throughput import cpu_name

from modeling_embinv.data.files import write_json
from modeling_embinv.evaluation.report import markdown_table

ROOT = Path(__file__).parents[1]
THREADS = {
    "as PyTorch has them": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
# vectors in a call, and settings of `generate`
WORK = {
    "one text": (1, {}),
    "one text, surrogate": (1, {"num_corrections": 5, "feedback": "surrogate"}),
    "32 texts": (32, {}),
}
TEXT = "We will meet at the station on Friday evening."


def measure(repeats: int) -> None:
    """Print the median seconds of each kind of work, as JSON."""
    import torch

    from modeling_embinv.data.encoder_config import EncoderConfig
    from modeling_embinv.data.encoders import load_encoder
    from modeling_embinv.loading import load_inverter

    model, _ = load_inverter(ROOT / "checkpoints" / "embinv-minilm")
    vector = load_encoder(EncoderConfig.of_inverter(model.config)).encode([TEXT])
    seconds = {}
    for name, (count, settings) in WORK.items():
        times = []
        for _ in range(repeats + 1):  # the first call warms up, and does not count
            start = time.perf_counter()
            model.generate(vector.repeat(count, 1), generator=torch.Generator().manual_seed(0), **settings)
            times.append(time.perf_counter() - start)
        seconds[name] = statistics.median(times[1:])
    print(json.dumps(seconds))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other processes that compute without a pause."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=result_file, help="file of the results")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.repeats)
        return
    command = [sys.executable, __file__, "--measure", "--repeats", str(options.repeats)]
    rows, lines = [], [["threads", "other processes", *(f"{name}, ms" for name in WORK)]]
    for others in (0, 1):
        for threads, settings in THREADS.items():
            with busy(others):
                told = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, check=True)
            seconds = json.loads(told.stdout.splitlines()[-1])
            rows.append({"name": f"{threads}, {others} other", "seconds": seconds})
            shown = f"`{threads}`" if settings else threads
            lines.append([shown, str(others), *(f"{1000 * one:,.0f}" for one in seconds.values())])
            print(" | ".join(lines[-1]), flush=True)
    if options.json:
        result = {"cpu": cpu_name(), "cores": os.cpu_count(), "repeats": options.repeats, "rows": rows}
        write_json(options.json, result | {"table": markdown_table(lines)})


if __name__ == "__main__":
    main()
