"""What ten times as many texts would buy: the learning curve of the GPU run, drawn out.

    python experiments/extrapolate.py

−log p a token = a · nᵇ in the number n of texts seen, least squares in logarithms; a draft's BLEU is a straight line
of −log p. Fitted to all scores of the run, and to those since the corrector has its share of the updates: the two say
how far one may believe either. Writes `results/extrapolated.json`.
"""

import json
from pathlib import Path

import numpy as np

from modeling_embinv.data.files import write_json

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "extrapolated.json"
LOSS, BLEU, CORRECTED = "−log p a token", "draft, BLEU", "corrected once, BLEU"
TIMES = 10


def extrapolated(texts: np.ndarray, loss: np.ndarray, bleu: np.ndarray) -> dict[str, float]:
    """The exponent b, and −log p and BLEU at the last number of texts and at ten times as many."""
    power, offset = np.polyfit(np.log(texts), np.log(loss), 1)
    slope, base = np.polyfit(loss, bleu, 1)
    expected = float(np.exp(offset) * (TIMES * texts[-1]) ** power)
    return {
        "scores": len(texts),
        "exponent": float(power),
        "−log p a token, now": float(loss[-1]),
        "ten times as many": expected,
        "draft, BLEU, now": float(bleu[-1]),
        "BLEU, ten times as many": float(base + slope * expected),
    }


def main() -> None:
    rows = {}
    for length, found in json.loads((FOLDER / "results" / "gpu_run.json").read_text()).items():
        scores = list(found["rows"].values())
        texts = np.array([1e6 * float(name.split()[0]) for name in found["rows"]])
        loss, bleu = (np.array([row[name] for row in scores]) for name in (LOSS, BLEU))
        is_late = np.array([row[CORRECTED] is not None for row in scores])
        rows[f"{length}, all scores"] = extrapolated(texts, loss, bleu)
        rows[f"{length}, with the corrector"] = extrapolated(texts[is_late], loss[is_late], bleu[is_late])
    columns = [name for name in next(iter(rows.values())) if name != "scores"]
    write_json(RESULTS, {"ten times": {"columns": columns, "digits": 2, "rows": rows}})


if __name__ == "__main__":
    main()
