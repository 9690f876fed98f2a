"""`embinv invert` on a hundred thousand vectors: is its time a straight line, its memory flat, and does a kill matter?

    python benchmarks/many_vectors.py ../shared/corpus/heldout/en/*.txt --json many_vectors.json

The texts' vectors are repeated until there are enough. The run is killed (SIGKILL) on its way and started again.
This script can be killed, too: called again, it goes on, and its clock stands still in between.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from result_file import result_file
from run_folder import begin_run

from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.evaluation.report import markdown_table
from modeling_embinv.inversion.dumps import PART_ROWS
from modeling_embinv.loading import load_inverter

DISTINCT = 4096
MILLION = 1_000_000


def write_vectors(path: Path, texts: list[Path], count: int, model_folder: str):
    """Vectors of up to DISTINCT lines that fit the canvas, repeated to (count, D)."""
    model, _ = load_inverter(model_folder)
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    lines = [line for text in texts for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    lengths = map(len, tokenize(encoder.tokenizer, lines))
    fitting = [line for line, size in zip(lines, lengths, strict=True) if size < model.config.max_sequence_length]
    picked = np.random.default_rng(0).permutation(len(fitting))[:DISTINCT]
    vectors = encoder.encode([fitting[place] for place in picked]).cpu().numpy()
    np.save(path, np.resize(vectors, (count, vectors.shape[1])))


def watch(command: list[str], parts: Path, kill_at: int | None) -> Iterator[tuple[float, int, float]]:
    """Runs the command; (seconds since the last, parts finished, MiB of memory) every two seconds until it ends.

    Raises:
        RuntimeError: when it fails by itself.
    """
    process = subprocess.Popen(command)
    last, status = time.perf_counter(), psutil.Process(process.pid)
    try:
        while process.poll() is None:
            time.sleep(2)
            if process.poll() is not None:
                break
            now, done = time.perf_counter(), len(list(parts.glob("*.jsonl")))
            yield now - last, done, status.memory_info().rss / 2**20
            last = now
            if kill_at is not None and done >= kill_at:
                return
    finally:  # a run that outlived this script would keep the lock of its folder
        process.kill()
        process.wait()
    if process.returncode:
        raise RuntimeError(f"embinv invert ended with {process.returncode}")


def trace(options, folder: Path) -> list[dict]:
    """Inverts all vectors, killed once on the way; one row for every look at the run."""
    vectors, out, log = folder / "vectors.npy", folder / "texts.parquet", folder / "trace.jsonl"
    command = [sys.executable, "-m", "modeling_embinv.cli", "invert", vectors, "--out", out, "--model", options.model,
               "--preset", options.preset, *options.flags]  # fmt: skip
    weights = EmbInvConfig.from_pretrained(options.model).checksums
    names = [[str(path), path.stat().st_size] for path in options.texts]
    given = {
        "flags": [*map(str, command[2:])],
        "weights": weights,
        "texts": names,
        "number of vectors": options.vectors,
    }
    begin_run(folder, given)
    if not vectors.exists():
        write_vectors(vectors, options.texts, options.vectors, options.model)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    while not out.exists():
        run = rows[-1]["run"] + 1 if rows else 0
        kill_at = round(options.kill_at * options.vectors / PART_ROWS) if run == 0 else None
        with log.open("a", encoding="utf-8") as file:
            for seconds, parts, memory in watch([*map(str, command)], out.with_name(out.name + ".parts"), kill_at):
                before = rows[-1]["seconds"] if rows else 0.0
                done = max(parts * PART_ROWS, rows[-1]["vectors"] if rows else 0)
                rows.append({"run": run, "seconds": before + seconds, "vectors": done, "mib": memory})
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    return rows


def report(rows: list[dict], count: int) -> dict:
    """Line and memory of each uninterrupted stretch, its start and the loading of the model left out."""
    stretches = []
    for run in sorted({row["run"] for row in rows}):
        own = [row for row in rows if row["run"] == run]
        working = [row for before, row in pairwise(own) if row["vectors"] > before["vectors"]]
        if len(working) < 3:
            continue
        vectors, seconds, mib = (np.array([row[key] for row in working]) for key in ("vectors", "seconds", "mib"))
        slope, start = np.polyfit(vectors, seconds, 1)
        spread = np.abs(seconds - (slope * vectors + start)).max() / (seconds[-1] - seconds[0])
        r_squared = np.corrcoef(vectors, seconds)[0, 1] ** 2
        stretches.append(
            {
                "vectors": int(vectors[-1] - vectors[0]), "vectors_per_second": 1 / slope, "r_squared": r_squared,
                "largest_deviation": spread, "mib_first_tenth": float(np.median(mib[: max(1, len(mib) // 10)])),
                "mib_last_tenth": float(np.median(mib[-max(1, len(mib) // 10) :])), "mib_largest": float(mib.max()),
            }
        )  # fmt: skip
    total = sum(stretch["vectors"] for stretch in stretches)
    seconds = sum(stretch["vectors"] / stretch["vectors_per_second"] for stretch in stretches)
    return {"vectors": count, "hours_for_a_million": MILLION * seconds / total / 3600, "stretches": stretches}


def table(result: dict) -> str:
    """Markdown: each stretch of work, with its distance from a straight line and its memory."""
    lines = [
        ["stretch", "vectors", "vectors a second", "R²", "farthest from the line", "MiB, first tenth", "last tenth"]
    ]
    for number, found in enumerate(result["stretches"]):
        speed = [f"{found['vectors']:,}", f"{found['vectors_per_second']:.1f}", f"{found['r_squared']:.6f}"]
        memory = [f"{found[key]:,.0f}" for key in ("mib_first_tenth", "mib_last_tenth")]
        lines.append([f"after {number} kills", *speed, f"{100 * found['largest_deviation']:.1f} %", *memory])
    return markdown_table(lines)


def plot(rows: list[dict], path: Path):
    """Vectors and memory over time; each run in a colour of its own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for run in sorted({row["run"] for row in rows}):
        own = [row for row in rows if row["run"] == run]
        minutes = [row["seconds"] / 60 for row in own]
        label = "before the kill" if run == 0 else "after it" if run == 1 else f"run {run}"
        panels[0].plot(minutes, [row["vectors"] for row in own], label=label)
        panels[1].plot(minutes, [row["mib"] for row in own], label=label)
    panels[0].set(xlabel="minutes", ylabel="vectors inverted")
    panels[1].set(xlabel="minutes", ylabel="memory, MiB", ylim=(0, None))
    panels[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+", help="files of held-out lines")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--model", default=str(CHECKPOINT))
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--kill_at", type=float, default=0.4, help="share of the vectors")
    parser.add_argument("--out", type=Path, default=Path("runs/many_vectors"))
    parser.add_argument("--json", type=result_file, help="write the result there")
    parser.add_argument("--plot", type=result_file, help="draw the vectors finished over time there")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags of embinv invert, last")
    options = parser.parse_args(arguments)
    rows = trace(options, options.out)
    written = pq.read_metadata(options.out / "texts.parquet").num_rows
    if written != options.vectors:
        raise SystemExit(f"{written} texts for {options.vectors} vectors")
    result = report(rows, options.vectors)
    result["table"] = table(result)
    print(f"{result['table']}\n\na million vectors: {result['hours_for_a_million']:.1f} hours")
    if options.json:
        write_json(options.json, result)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
