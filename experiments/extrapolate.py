"""Fit the learning curve of a run, and say what more texts would buy if it went on like that.

    python experiments/extrapolate.py runs/minilm_cpu/log.jsonl --batch_size 128

Validation loss = a · n^b in the number n of texts seen, least squares in logarithms; token F1 a straight line of the
loss. Both are extrapolations: they hold as long as neither data nor width becomes the limit.
"""

import argparse
import json
from pathlib import Path

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--batch_size", type=int, required=True, help="texts an update")
    parser.add_argument("--first", type=int, default=100_000, help="texts before which the curve still bends")
    parser.add_argument("--last", type=int, help="texts after which the log is left out")
    parser.add_argument("--at", type=float, nargs="+", default=[1e6, 5e6, 3e7], help="numbers of texts to look at")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.log.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "validation/loss" in row]
    texts = np.array([row["step"] * options.batch_size for row in rows])
    loss, f1 = (np.array([row[f"validation/{name}"] for row in rows]) for name in ("loss", "token_f1"))
    used = (texts >= options.first) & (texts <= (options.last or texts.max()))
    power, offset = np.polyfit(np.log(texts[used]), np.log(loss[used]), 1)
    slope, base = np.polyfit(loss[used], f1[used], 1)
    spread = np.abs(np.log(loss[used]) - offset - power * np.log(texts[used])).max()
    print(f"loss = {np.exp(offset):.2f} · n^{power:.3f} on {used.sum()} validations, at most {spread:.1%} off")
    for count in options.at:
        expected = np.exp(offset) * count**power
        print(f"{count:12,.0f} texts: loss {expected:.2f}, token F1 about {base + slope * expected:.0f}")


if __name__ == "__main__":
    main()
