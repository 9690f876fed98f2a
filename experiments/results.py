"""Fill the figures and tables of README, model card and docs from the JSON of results.

    python experiments/results.py           # `make results`; with --check nothing is written

A text holds `<!--figure:NAME-->…<!--/figure-->`, `<!--table:NAME-->…<!--/table-->`, `<!--demo:NUMBER-->…<!--/demo-->`
or `<!--run:NAME-->…<!--/run-->`, a command and what it printed; what stands between is made anew. figures.yaml says
what each name is, and which claims of the texts must hold.
"""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import claims
import gap_picture
import ladder
import yaml
from measured import ROOT, find, mean, results, row_scores
from tables import table

from modeling_embinv.data.files import write_text

FOLDERS = ("checkpoints/embinv-minilm", "benchmarks", "experiments")
TEXTS = ("README.md", "docs/**/*.md", *(f"{folder}/README.md" for folder in FOLDERS))
MARKER = re.compile(r"<!--(figure|table|demo|run):([\w.-]+)-->(.*?)<!--/\1-->", flags=re.S)
CARD = ROOT / "checkpoints" / "embinv-minilm"
# of the demo's six, in the README
SENTENCES = 2
PLOTS = ("lengths.png", "reliability.png")
REGISTRY = Path(__file__).with_name("figures.yaml")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when something would change")
    options = parser.parse_args(arguments)
    files = made()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'not from these results' if options.check else 'made anew'}")
        if not options.check:
            write_text(path, files[path])
            if path.parent == CARD:
                draw_plots()
    wrong = broken_claims()
    for name, claim in wrong:
        print(f"{name}: “{claim}” is no longer true; write its sentence anew")
    return int(bool(wrong or (options.check and stale)))


def registry() -> dict:
    """figures.yaml: `figures`, `tables` and `claims` by name."""
    return yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))  # ours: it may use aliases, a user's YAML may not


def texts() -> list[Path]:
    """The files that are filled."""
    return [path for pattern in TEXTS for path in sorted(ROOT.glob(pattern))]


def made() -> dict[Path, str]:
    """Every file as these results make it: the texts, and the README's picture."""
    names = registry()
    filled = {path: fill(path.read_text(encoding="utf-8"), names) for path in texts()}
    return {
        **filled,
        ladder.PICTURE: ladder.draw(results("ladder")),
        gap_picture.PICTURE: gap_picture.draw(results("gap_picture")),
    }


def fill(text: str, names: dict) -> str:
    """A text with everything between its markers made anew.

    Raises:
        KeyError: a name that figures.yaml or the results do not have.
    """

    def content(marker: re.Match) -> str:
        kind, name, _ = marker.groups()
        if kind == "figure":
            base, _, form = name.partition(".")
            new = figure(names["figures"][base], interval=form == "interval")
        elif kind == "table":
            new = f"\n\n{table(names['tables'][name])}\n\n"
        else:
            new = f"\n\n```console\n{demo(int(name)) if kind == 'demo' else run(name)}\n```\n\n"
        return f"<!--{kind}:{name}-->{new}<!--/{kind}-->"

    return MARKER.sub(content, text)


def figure(entry: str | dict, interval: bool = False) -> str:
    """A figure as text.

    Args:
        entry: a path (see `measured`), or `of`, a path, with `over` or `minus`, a path too, `times`, a factor, and
            `digits`: 2 for a cosine, else 1; or `paper`, a figure as the paper prints it.
        interval: the 95 % interval stands behind the mean.
    """
    entry = {"of": entry} if isinstance(entry, str) else entry
    if "paper" in entry:
        return entry["paper"]
    digits = entry.get("digits", 2 if entry["of"].endswith("cosine") else 1)
    if interval:
        return find(entry["of"]).shown(digits)
    value = mean(entry["of"]) * entry.get("times", 1)
    if "over" in entry:
        value /= mean(entry["over"])
    if "minus" in entry:
        value -= mean(entry["minus"])
    return f"{value:,.{digits}f}"


def demo(number: int) -> str:
    """A command of `make demo` and what it printed: the first sentences, and what follows the last one."""
    run = results("ladder")["demo"][number]
    blocks = run["output"].split("\n\n")
    sentences = sum(block.startswith("original") for block in blocks)
    shown = [*blocks[:SENTENCES], f"… {sentences - SENTENCES} more …", *blocks[sentences:]]
    return f"$ {run['command']}\n" + "\n\n".join(shown)


def run(name: str) -> str:
    """A command, what it printed, and its status where that is not 0."""
    ran = results(name)
    status = f"\n$ echo $?\n{ran['status']}" if ran["status"] else ""
    return f"$ {ran['command']}\n{ran['output']}{status}"


def draw_plots():
    """The card's plots, of the released checkpoint's evaluation."""
    from modeling_embinv.evaluation.plots import save_plots
    from modeling_embinv.evaluation.report import Report, Row

    evaluation = results("evaluation")
    rows = [Row(**{**row, "scores": row_scores(row)}) for row in evaluation["rows"]]
    report = Report(rows, *(evaluation[name] for name in ("accuracy_by_position", "calibration", "samples")))
    with tempfile.TemporaryDirectory() as folder:
        for path in save_plots(report, folder):
            if path.name in PLOTS:
                shutil.copy(path, CARD)


def broken_claims() -> list[tuple[str, str]]:
    """The claims that the results contradict, each with the name that it stands under."""
    names = registry()
    below = [(name, entry.get("of", ""), entry.get("claims", [])) for name, entry in names["tables"].items()]
    below += [(name, "", listed) for name, listed in names["claims"].items()]
    return [(name, claim) for name, within, listed in below for claim in listed if not claims.holds(claim, within)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
