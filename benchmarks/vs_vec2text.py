"""This project and vec2text side by side: calls, operations, seconds and memory at equal length, batch and threads.

    python benchmarks/vs_vec2text.py --json vs_vec2text.json

vec2text 0.0.13 runs with its own `Corrector.generate` in a virtual environment that the first call makes, on random
weights of its published shapes (T5-base inverter and corrector, a GTR-shaped encoder); ours on random weights of the
paper's shapes, and the released checkpoint in float32 and int8. Every model has a process of its own, for its memory's
sake; one works at a time.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from result_file import result_file
from throughput import cpu_name
from transformers import T5Config, T5EncoderModel

from modeling_embinv import EmbInvConfig, EmbInvForMaskedDiffusion, search_embinv
from modeling_embinv.data.files import write_json
from modeling_embinv.evaluation.report import markdown_table
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.training.flops import operation_counter

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "checkpoints" / "embinv-minilm"
PACKAGES = ("transformers==4.49.0", "vec2text==0.0.13", "scipy", "nltk", "sentencepiece")
# steps and beams of vec2text; 0 steps is its inverter alone
PEERS = [(0, 1), (20, 1), (20, 4), (20, 8), (50, 1), (50, 4), (50, 8)]
PAPER = dict(
    model_type="bert", hidden_size=768, num_hidden_layers=8, num_attention_heads=12, intermediate_size=3072,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
RELEASED = "released checkpoint"
SHAPES = {"8 layers of 768, vocabulary 30K": 30_522, "8 layers of 768, vocabulary 152K": 151_936}
NAMES = (*SHAPES, RELEASED, f"{RELEASED}, int8")
# searches of growing width; ranks and rounds are those of experiments/quality_cost.yaml
SEARCHES = {
    "10 lightest corrections": dict(num_corrections=10, num_hops=1, num_beams=1, num_proposals=4),
    "10 light corrections": dict(num_corrections=10, num_hops=1, num_beams=1, num_proposals=8),
    "10 narrow corrections": dict(num_candidates=32, num_corrections=10, num_hops=1, num_beams=2, num_proposals=32),
    "10 corrections": dict(num_candidates=32, num_corrections=10, num_hops=1),
}
SURROGATE_RANK = 80


def methods_of(name: str) -> dict[str, dict]:
    """Settings by method: the model's own open loop, and the searches."""
    open_loop = {"4 beams": {}} if name.startswith(RELEASED) else {"8 passes": dict(num_steps=8)}
    return open_loop | SEARCHES


@dataclass
class Row:
    """One method at one batch size; seconds and counts are of the whole batch, gflop of one text."""

    name: str
    batch_size: int
    seconds: list[float] = field(default_factory=list)
    estimated: bool = False
    encoder_calls: float = 0
    gflop: float = 0
    peak_gib: float = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Peer:
    """A running vec2text_worker.py."""

    def __init__(self, folder: Path, threads: int, length: int):
        python = ensure_environment(folder / "venv")
        worker = Path(__file__).with_name("vec2text_worker.py").resolve()
        command = [python, worker, folder / "weights", "--threads", threads, "--length", length]
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=(folder / "worker.log").open("w"), env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.log = folder / "worker.log"
        self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"vec2text stopped; the end of {self.log}:\n{self.log.read_text()[-2000:]}")
        return json.loads(line)

    def run(self, batch_size: int, num_steps: int, beam: int, count: bool = False) -> dict:
        wanted = {"batch_size": batch_size, "num_steps": num_steps, "beam": beam, "count": count}
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ensure_environment(folder: Path) -> Path:
    """The Python of a virtual environment with vec2text, made if there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} for vec2text …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"torch=={torch.__version__.split('+')[0]}", *PACKAGES],
                       check=True)  # fmt: skip
    return python


def from_few_steps(two: float, three: float, num_steps: int) -> float:
    """What `num_steps` rounds cost, from calls of two and three rounds: from the second on, all rounds are alike."""
    return two + (num_steps - 2) * (three - two)


def measure_peer(peer: Peer, batch_size: int, num_steps: int, beam: int, options) -> Row | None:
    """vec2text at one setting: measured whole if that fits the budget, else from runs of two and three rounds."""
    row = Row(peer_name(num_steps, beam), batch_size)
    if num_steps == 0:
        answers = [peer.run(batch_size, 0, 1) for _ in range(options.repeats)]
        counted = peer.run(batch_size, 0, 1, count=True)
        row.seconds, row.gflop = [answer["seconds"] for answer in answers], counted["gflop"] / batch_size
        row.peak_gib = counted["peak_gib"]
        return row
    two = peer.run(batch_size, 2, beam)
    if 2.5 * two["seconds"] > options.budget:
        return None
    three = peer.run(batch_size, 3, beam)
    estimate = from_few_steps(two["seconds"], three["seconds"], num_steps)
    row.encoder_calls = from_few_steps(two["encoder_calls"], three["encoder_calls"], num_steps)
    if batch_size == 1:  # operations a text do not depend on the batch
        counted = [peer.run(1, steps, beam, count=True)["gflop"] for steps in (2, 3)]
        row.gflop = from_few_steps(*counted, num_steps)
    if estimate < options.budget:
        answers = [peer.run(batch_size, num_steps, beam)]
        row.seconds, row.encoder_calls = [answers[0]["seconds"]], answers[0]["encoder_calls"]
    else:
        row.seconds, row.estimated = [estimate], True
    row.peak_gib = three["peak_gib"]
    return row


class Ours:
    """One of our models; `feedback` embeds token ids."""

    def __init__(self, name: str, length: int):
        self.name, self.length = name, length
        self.model, self.feedback = released(name) if name.startswith(RELEASED) else of_shape(name, length)
        self.model.requires_grad_(False)  # the counter of operations trips over views of weights that need gradients

    def call(self, batch_size: int, settings: dict):
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(batch_size, self.model.config.embedding_dim, generator=generator)
        vectors /= vectors.norm(dim=1, keepdim=True)
        if "num_corrections" in settings:
            settings = {**settings, "feedback": self.feedback}
        return self.model.generate(vectors, generator=generator, max_length=self.length, **settings)

    def measure(self, batch_size: int, method: str, options) -> Row:
        row, settings = Row(f"{self.name}, {method}", batch_size), methods_of(self.name)[method]
        if "num_corrections" not in settings:
            self.call(batch_size, settings)
        while len(row.seconds) < options.repeats and sum(row.seconds) < options.budget / 4:
            start = time.perf_counter()
            output = self.call(batch_size, settings)
            row.seconds.append(time.perf_counter() - start)
        row.encoder_calls = output.num_feedback_calls
        # PyTorch's counter does not see int8 products; they are as many as in float32
        if batch_size == 1 and not self.name.endswith("int8"):
            with operation_counter() as counter:
                self.call(1, settings)
            row.gflop = counter.get_total_flops() / 1e9
        row.peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return row


def of_shape(name: str, length: int):
    """Random weights of the paper's trunk, and an encoder of GTR's shape."""
    torch.manual_seed(0)
    config = EmbInvConfig(
        backbone_config=PAPER | {"vocab_size": SHAPES[name]}, vocab_size=SHAPES[name], embedding_dim=768,
        max_sequence_length=length, surrogate_rank=SURROGATE_RANK,
    )  # fmt: skip
    shape = dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32_128)
    encoder = T5EncoderModel(T5Config(**shape)).eval()
    feedback = lambda ids: encoder(input_ids=ids % 32_128).last_hidden_state.mean(dim=1)  # noqa: E731
    return EmbInvForMaskedDiffusion(config).eval(), feedback


def released(name: str):
    """The checkpoint of this repository with the encoder that it inverts."""
    from modeling_embinv.data.encoder_config import EncoderConfig
    from modeling_embinv.data.encoders import load_encoder
    from modeling_embinv.loading import load_inverter

    model, _ = load_inverter(MODEL)
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    model.eval()
    if name.endswith("int8"):
        model.to_int8()
    return model, lambda ids: encoder.encode_ids(ids)


def start_ours(name: str, options):
    """In a process of its own: the model that `measure_ours` measures."""
    global ours
    keep_large_blocks()
    torch.set_num_threads(options.threads)
    search_embinv.PATIENCE = 10**9  # random weights never improve, and must not end the rounds early
    ours = Ours(name, options.length)


def measure_ours(batch_size: int, method: str, options) -> Row:
    return ours.measure(batch_size, method, options)


def table(rows: list[Row]) -> str:
    """Markdown, with speed as a ratio to vec2text's 20×1 at the same batch size."""
    lines = [["method", "batch", "encoder calls a text", "GFLOP a text", "seconds a text", "against 20×1", "peak GiB"]]
    base = {row.batch_size: row.median / row.batch_size for row in rows if row.name == "vec2text 20×1"}
    flops = {row.name: row.gflop for row in rows if row.gflop}
    for row in rows:
        seconds = row.median / row.batch_size
        faster = base[row.batch_size] / seconds if row.batch_size in base else None
        ratio = "—" if faster is None else f"{faster:,.1f}×" if faster >= 1 else f"{faster:.2g}×"
        mark = "≈ " if row.estimated else ""
        gflop = flops.get(row.name.replace(", int8", ""), 0)
        cost = [f"{row.encoder_calls / row.batch_size:,.0f}", f"{gflop:,.1f}", f"{mark}{seconds:,.3g}", ratio]
        lines.append([row.name, str(row.batch_size), *cost, f"{row.peak_gib:.1f}"])
    return markdown_table(lines)


def benchmark(options) -> list[Row]:
    """All rows; a method that would take more than the budget, by what a smaller batch took, is left out."""
    peer, rows = Peer(Path(options.folder).resolve(), options.threads, options.length), known_rows(options)
    spawn = get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, spawn, start_ours, (name, options)) for name in NAMES}
    try:
        for before, batch_size in zip([None, *options.batch_sizes], options.batch_sizes, strict=False):
            for num_steps, beam in PEERS:
                if wanted(rows, (num_steps, beam), batch_size, before, options.budget):
                    add(rows, measure_peer(peer, batch_size, num_steps, beam, options), options)
            for name, worker in workers.items():
                for method in methods_of(name):
                    alone = find(rows, f"{name}, {method}", 1)
                    affordable = alone is None or batch_size * alone.median < options.budget
                    if affordable and not find(rows, f"{name}, {method}", batch_size):
                        add(rows, worker.submit(measure_ours, batch_size, method, options).result(), options)
    finally:
        peer.close()
        for worker in workers.values():
            worker.shutdown()
    return rows


def wanted(rows: list[Row], setting: tuple[int, int], batch_size: int, before: int | None, budget: float) -> bool:
    """Whether a row of vec2text is yet to be measured, and fits the budget by what the smaller batch `before` took."""
    name = peer_name(*setting)
    if before is None or find(rows, name, batch_size):
        return find(rows, name, batch_size) is None
    smaller = find(rows, name, before)
    if smaller is None:
        return False
    rounds = max(setting[0], 1)  # two are run to see whether more of them can be
    return 2.5 * min(2, rounds) / rounds * smaller.median * batch_size / before < budget


def peer_name(num_steps: int, beam: int) -> str:
    return "vec2text open loop" if num_steps == 0 else f"vec2text {num_steps}×{beam}"


def find(rows: list[Row], name: str, batch_size: int) -> Row | None:
    return next((row for row in rows if (row.name, row.batch_size) == (name, batch_size)), None)


def known_rows(options) -> list[Row]:
    """What an earlier call has measured in the same way.

    Raises:
        SystemExit: when its file is of another length, number of threads, processor or checkpoint.
    """
    if not options.json or not options.json.exists():
        return []
    earlier = json.loads(options.json.read_text(encoding="utf-8"))
    for name in ("length", "threads", "processor", "checksums"):
        value = getattr(options, name)
        if earlier["options"].get(name, value) != value:  # older files noted less
            raise SystemExit(f"{options.json} was measured with another {name}, {earlier['options'][name]}.")
    return [Row(**row) for row in earlier["rows"]]


def add(rows: list[Row], row: Row | None, options):
    """Keep, print and save a row."""
    if row is not None:
        rows.append(row)
        print(table(rows).splitlines()[-1], file=sys.stderr, flush=True)
        save(rows, options)


def save(rows: list[Row], options):
    if options.json:
        noted = {**vars(options), "json": str(options.json)}
        write_json(options.json, {"options": noted, "rows": [vars(row) for row in rows], "table": table(rows)})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/vec2text", help="keeps vec2text's environment and random weights")
    parser.add_argument("--length", type=int, default=32, help="tokens of a text")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of quick settings; medians count")
    parser.add_argument(
        "--budget", type=float, default=120, help="seconds; longer settings are estimated, or left out"
    )
    parser.add_argument(
        "--json", type=result_file, help="write all numbers there, row by row; called again, it goes on"
    )
    options = parser.parse_args(arguments)
    options.processor, options.checksums = cpu_name(), EmbInvConfig.from_pretrained(MODEL).checksums
    return options


if __name__ == "__main__":
    chosen = parse()
    found = benchmark(chosen)
    print(table(found))
