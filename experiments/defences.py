"""What defences of a vector store cost in search, and what they keep from three attackers.

    python experiments/defences.py                      # hours on one core; killed and called again, it goes on

Three stores of the corpus' text, by the code of `embinv audit --defences all`. What is unfinished lies in `--work`; a
store that stands in the results is not measured again. Writes `results/defences.json`.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from kept_vectors import digest, kept_vectors

from modeling_embinv.audit.attack import Attacker
from modeling_embinv.audit.defences import ATTACKERS, DefenceReport, DefenceResult, compare, distinct
from modeling_embinv.audit.known_pairs import public_texts
from modeling_embinv.audit.protections import parse_families
from modeling_embinv.audit.run import open_work
from modeling_embinv.audit.sample import Sample
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.data.sources import read_texts
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.known_pairs import fine_tune

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "defences.json"
SEARCH = ("recall@10", "nDCG@10", "labelled recall@10", "labelled nDCG@10")
COLUMNS = [*SEARCH, "cosine", "after the map", *(f"{who} %" for who in ATTACKERS), "noise of this recall %"]


class Bench:
    """The attacker and the encoder.

    Args:
        experiment: the YAML.
        work: folder of what is unfinished.
    """

    def __init__(self, experiment: dict[str, Any], work: Path) -> None:
        self.experiment, self.work = experiment, work
        self.model, self.tokenizer = load_inverter(experiment["model"])
        self.model.eval()
        if experiment["int8"]:
            self.model.to_int8()
        self.encoder = load_encoder(EncoderConfig.of_inverter(self.model.config))
        self.encoder.read_whole_texts()
        self.attacker = Attacker(self.model, self.tokenizer, work, self.encoder.encode)

    def measure(self, name: str, parts: list[str]) -> dict[str, Any]:
        """One store's tables."""
        folder, steps = self.work / name.replace(" ", "-"), self.experiment["train_steps"]
        store, held_out = self.store(name, parts)
        picked = np.random.default_rng(0).permutation(held_out)[: self.experiment["attacked"]]
        sample = store.take(np.sort(picked))
        self.begin(sample, folder)
        attacker = replace(self.attacker, work=folder, retrain=self.retrain, train_steps=steps)
        known = public_texts(sample.texts or [])
        return tables(compare(attacker, sample, distinct(store), parse_families(self.experiment["defences"]), known))

    def begin(self, sample: Sample, folder: Path) -> None:
        """Makes the folder of unfinished attacks; those of other rows, weights or settings are removed."""
        settings = {name: self.experiment[name] for name in ("train_steps", "model", "int8")}
        open_work(folder, sample, {**settings, "checksums": self.model.config.checksums})

    def store(self, name: str, parts: list[str]) -> tuple[Sample, int]:
        """The store, and how many of its texts, the first ones, are held out."""
        rows = self.experiment["rows"]
        held_out, others = (
            dict.fromkeys(islice(self._lines(parts, is_held_out), rows)) for is_held_out in (True, False)
        )
        texts = list(held_out | others)[:rows]
        encoder = self.encoder.config
        file = "-".join([name, encoder.id, str(encoder.revision), *filter(None, [encoder.prompt])])
        vectors = kept_vectors(self.work, re.sub(r"[^\w.]+", "-", file), texts, self.encoder.encode)
        sample = Sample(vectors, np.arange(len(texts)), None, texts, len(texts), digest(vectors.tobytes()))
        return sample, min(len(held_out), rows)

    def retrain(self, texts: list[str], vectors: np.ndarray, folder: Path, steps: int) -> Any:
        """The checkpoint, fine-tuned on pairs; what training prints goes to stderr."""
        with redirect_stdout(sys.stderr):
            name, config = self.experiment["model"], self.model.config
            tuned = fine_tune(name, config, self.encoder, texts, vectors, folder, steps)
        model, _ = load_inverter(str(tuned))
        model.config.canvas_lengths = self.model.config.canvas_lengths
        return model.eval()

    def _lines(self, parts: list[str], is_held_out: bool) -> Iterator[str]:
        """The texts of several parts, which take turns."""
        corpus, place = self.experiment["corpus"], "heldout/en/{}.txt" if is_held_out else "en/{}.txt.xz"
        rounds = zip_longest(*(read_texts(Path(corpus) / place.format(part)) for part in parts))
        return (document.text for found in rounds for document in found if document is not None)


def tables(report: DefenceReport) -> dict[str, Any]:
    """A report as tables."""
    rows = {one.name: row(one) for one in report.results}
    columns = [name for name in COLUMNS if any(one[name] is not None for one in rows.values())]
    pairs = {f"{count:,} pairs": {"cosine of other vectors": cosine} for count, cosine in report.pairs}
    return {
        "vectors": report.stored,
        "attacked": report.rows,
        "known": report.known,
        "left out": report.left_out,
        "defences": {"columns": columns, "digits": 0, "rows": rows},
        "rotation": {"columns": ["cosine of other vectors"], "digits": 2, "rows": pairs},
    }


def row(one: DefenceResult) -> dict[str, Any]:
    """A line of a table; None where something was not measured."""
    shares = {
        f"{who} %": {"mean": 100 * figure.value, "low": 100 * figure.low, "high": 100 * figure.high}
        for who, figure in one.attacks.items()
    }
    search = [*one.utility, *(one.labelled or (None, None))]
    matched = None if one.noise_words is None else 100 * one.noise_words
    found = {"cosine": one.cosine, "after the map": one.aligned, "noise of this recall %": matched}
    return {
        **dict.fromkeys(COLUMNS),
        **dict(zip(SEARCH, search, strict=True)),
        **found,
        **shares,
        "advice": one.advice,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("data/defences"), help="folder of what is unfinished")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", help="stores; all by default")
    for name in ("rows", "attacked", "train_steps"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="in place of the YAML's")
    parser.add_argument("--defences", help="in place of the YAML's")
    options = parser.parse_args(arguments)
    experiment = load_yaml(FOLDER / "defences.yaml")
    given = {name: getattr(options, name) for name in ("rows", "attacked", "train_steps", "defences")}
    experiment |= {name: value for name, value in given.items() if value is not None}
    settings = {name: experiment[name] for name in given}
    done = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"settings": settings}
    if done["settings"] != settings:
        parser.error(f"{options.out} is of other settings, {done['settings']}: remove it, or give another --out")
    bench = Bench(experiment, options.work)
    for name, parts in experiment["stores"].items():
        if name in done or (options.only and name not in options.only):
            continue
        start = time.process_time()
        done[name] = bench.measure(name, parts)
        done[name]["CPU seconds"] = round(time.process_time() - start)
        write_json(options.out, done)
        print(name, json.dumps(done[name]["defences"]["rows"], indent=1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
