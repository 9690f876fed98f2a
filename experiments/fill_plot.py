"""How many hidden words come back, by the number of gaps and by the length of the text: docs/images/gaps.png.

    python experiments/fill_plot.py        # fill.py draws it, too

From `results/fill.json`.
"""

import re
import sys
from pathlib import Path

import matplotlib
from measured import results

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PLOT = Path(__file__).parent.parent / "docs" / "images" / "gaps.png"
JUDGES = {"encoder": "C0", "surrogate": "C1"}


def main() -> int:
    plot(results("fill"), PLOT)
    return 0


def plot(found: dict, path: Path):
    """Both panels, of results/fill.json."""
    figure, (gaps, lengths) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
    for judge, colour in JUDGES.items():
        draw(gaps, numbered(found["gaps"]["rows"], rf"(\d+) gaps?, {judge}"), f"the {judge} judges", colour)
    draw(gaps, numbered(found["floors"]["rows"], r"(\d+) gaps?, no vector.*"), "no vector", "0.6")
    for judge, colour in JUDGES.items():
        rows = numbered(found["lengths"]["rows"], rf"(\d+) tokens, {judge}")
        draw(lengths, rows, f"one gap, the {judge} judges", colour)
    gaps.set(xlabel="gaps of one word", ylabel="hidden words that come back, %", ylim=(0, 105))
    lengths.set(xlabel="tokens of the text", xscale="log")
    for panel in (gaps, lengths):
        points = sorted({x for line in panel.get_lines() for x in line.get_xdata()})
        panel.set_xticks(points, [str(int(x)) for x in points])
        panel.minorticks_off()
        panel.legend(fontsize="small", loc="center left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def numbered(rows: dict, pattern: str) -> dict[int, dict]:
    """Number in the name → share of words, of the rows whose whole names match."""
    matches = {name: re.fullmatch(pattern, name) for name in rows}
    return {int(match[1]): rows[name]["words %"] for name, match in sorted(matches.items()) if match}


def draw(panel: Axes, shares: dict[int, dict], label: str, colour: str):
    """A line with its 95 % intervals."""
    points = sorted(shares)
    means = [shares[point]["mean"] for point in points]
    below = [shares[point]["mean"] - shares[point]["low"] for point in points]
    above = [shares[point]["high"] - shares[point]["mean"] for point in points]
    panel.errorbar(points, means, [below, above], marker="o", markersize=4, capsize=3, color=colour, label=label)


if __name__ == "__main__":
    sys.exit(main())
