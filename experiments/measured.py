"""One measured value, by its path in the JSON of results: "quality_cost | 16 tokens | 10 rounds, encoder | BLEU".

The first name is a file of experiments/results, benchmarks/results or the released checkpoint. Each further name is a
key, the name of a row, or "key=value", which keeps the rows that have it.
"""

import functools
import json
import statistics
from pathlib import Path

from modeling_embinv.evaluation.held_out import Score

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("experiments/results", "benchmarks/results", "checkpoints/embinv-minilm")


@functools.cache
def results(name: str) -> dict:
    """A file of results.

    Raises:
        KeyError: no file of that name.
    """
    for folder in FOLDERS:
        path = ROOT / folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    raise KeyError(f"no results named {name} in {', '.join(FOLDERS)}")


def find(path: str):
    """What stands at a path: a number (the median of timings), a `Score`, a row, or several rows.

    Raises:
        KeyError: nothing stands there.
    """
    name, *keys = path.split(" | ")
    value = results(name)
    for key in keys:
        value = _step(value, key, path)
    if isinstance(value, list) and value and isinstance(value[0], float):  # repeated timings
        return statistics.median(value)
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return Score(**value) if isinstance(value, dict) and set(value) == {"mean", "low", "high"} else value


def mean(path: str) -> float:
    """The number at a path, without its interval.

    Raises:
        KeyError: no one number stands there.
    """
    value = find(path)
    if isinstance(value, Score):
        return value.mean
    if not isinstance(value, int | float):
        raise KeyError(f"{path}: no number, but a {type(value).__name__}")
    return value


def row_scores(row: dict) -> dict[str, Score]:
    return {name: Score(**score) for name, score in row["scores"].items()}


def _step(value, key: str, path: str):
    if isinstance(value, list):
        name, _, wanted = key.partition("=")
        kept = [row for row in value if str(row.get(name)) == wanted or key in (row.get("name"), row.get("what"))]
        if kept:
            return kept
        if len(value) == 1:
            return _step(value[0], key, path)
        raise KeyError(f"{path}: no row {key}")
    for holder in (value, value.get("scores", {})):
        if key in holder:
            return holder[key]
    if "rows" in value:
        return _step(value["rows"], key, path)
    raise KeyError(f"{path}: no {key}, there are {', '.join(value)}")
