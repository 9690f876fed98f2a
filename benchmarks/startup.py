"""CPU seconds that a command takes before it does its work: imports, and one vector as the smallest job.

    python benchmarks/startup.py
    python benchmarks/startup.py --repeats 10 --json benchmarks/results/startup.json

CPU seconds of all threads are compared, because other programs on the machine change wall time far more. The best of
several runs counts: the first one compiles Python files and fills the disk cache.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from result_file import result_file
from throughput import cpu_name

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.flags import number
from modeling_embinv.evaluation.report import markdown_table

ROOT = Path(__file__).parents[1]
TEXT = "Our meeting is at noon."  # its search ends early, as most do
INVERT, TRANSFORMERS = "embinv invert of one vector", "transformers' PreTrainedModel"
COMMANDS = {
    "embinv --help": ["--help"],
    "embinv --version": ["--version"],
    "embinv invert --help": ["invert", "--help"],
    "embinv train --help": ["train", "--help"],
    "a mistyped flag": ["demo", "--num-step", "3"],
    "a missing file": ["invert", "missing.npy"],
    "a vector of another width": ["invert", "[1, 2]"],
}
# what no change of this package can make shorter
IMPORTS = {"import torch": "import torch", TRANSFORMERS: "from transformers import PreTrainedModel"}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process, to its end; it keeps the Python files that it compiles, for the next run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=ROOT, env={**kept, "OMP_NUM_THREADS": "1"}, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=number(int, 1, 10**6), default=3)
    parser.add_argument("--json", type=result_file, help="file of the results")
    options = parser.parse_args(arguments)
    (vector,) = load_encoder(EncoderConfig.from_yaml("minilm")).encode([TEXT]).tolist()
    commands = {**COMMANDS, INVERT: ["invert", json.dumps(vector)]}
    runs = {name: ["-m", "modeling_embinv.cli", *arguments] for name, arguments in commands.items()}
    runs |= {name: ["-c", statement] for name, statement in IMPORTS.items()}
    seconds = {}
    for name, arguments in runs.items():
        times = [cpu_seconds([sys.executable, *arguments]) for _ in range(options.repeats)]
        seconds[name] = round(min(times), 3)
        print(f"{name:<32} {seconds[name]:6.2f} s", flush=True)
    if options.json:
        lines = [["", "CPU seconds"], *([name, f"{taken:.2f}"] for name, taken in seconds.items())]
        share = seconds[TRANSFORMERS] / seconds[INVERT]
        result = {"cpu": cpu_name(), "cpu_seconds": seconds, "share_of_imports": share, "repeats": options.repeats}
        write_json(options.json, result | {"table": markdown_table(lines)})


if __name__ == "__main__":
    main()
