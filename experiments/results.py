"""Make RESULTS.md from the results of experiments and benchmarks, in the order and with the words of `tables.yaml`.

python experiments/results.py > RESULTS.md
"""

import json
from pathlib import Path

from modeling_embinv.data.settings import load_yaml
from modeling_embinv.evaluation.held_out import Score
from modeling_embinv.evaluation.report import COLUMNS, cells, markdown_table

FOLDER = Path(__file__).resolve().parent
HEAD = """# Results

The paper's tables, measured again: held out by document, lower-cased where the encoder's tokenizer is (MiniLM, mpnet),
with 95 % bootstrap intervals, and every table with the command that makes it. The scale is what two CPU cores afford;
each experiment's YAML has the paper's own scale under `--full`. *TFLOP* counts the
updates, the warm-up comes on top. *Loss* is in nats a masked token of the text, at 100,
50 and 20 % masked, which compares models trained under any noise. [experiments/README.md](experiments/README.md) says
where encoders and data come from. `python experiments/results.py > RESULTS.md` makes this file.

**Figures from before 2026-11-26.** Until then, training on prepared pairs gave every text the same noise level in each
epoch: the first texts of the data set were seen with few tokens masked, the last ones with most. Spans were not
affected. The tables that this concerns say so; they stay until their models are trained again.
"""
# a line below the command of each table whose models were trained with the fault, by the entry's `noise`
NOISE = {
    "pairs": "*Trained on pairs before 2026-11-26: the noise level depended on the text, see above.*",
    "released": "*The released checkpoint's first stage was trained on pairs before 2026-11-26, see above.*",
}


def main():
    print(HEAD)
    for entry in load_yaml(FOLDER / "tables.yaml"):
        path = (FOLDER / "results" / f"{entry['results']}.json").resolve()
        if not path.exists():
            continue
        results = json.loads(path.read_text(encoding="utf-8"))
        print(f"## {entry['title']}\n\n`{entry['command'].strip()}`\n")
        if "noise" in entry:
            print(f"{NOISE[entry['noise']]}\n")
        for heading, table in tables(results, entry):
            print(f"{heading}\n\n{table}\n" if heading else f"{table}\n")
        if path.with_suffix(".png").exists():
            print(f"![{entry['title']}]({path.with_suffix('.png').relative_to(FOLDER.parent)})\n")
        print(f"{entry['why'].strip()}\n")


def tables(results: dict, entry: dict) -> list[tuple[str, str]]:
    """The tables of a results file, each with the line above it."""
    if "table" in results:  # a benchmark's, as it printed it
        return [("", results["table"])]
    if "columns" in results:
        return [("", score_table(results["rows"], results["columns"], entry))]
    if "reports" in results:
        return [(f"{name}:", report_table(rows, entry)) for name, rows in results["reports"].items()]
    if "rows" not in results:
        return [(f"Texts of at most {length}:", cost_table(rows, entry)) for length, rows in results.items()]
    if isinstance(results["rows"], list):
        return [("", report_table(results["rows"], entry))]
    return [(f"{results['scale']}.", experiment_table(results["rows"], entry))]


def experiment_table(rows: dict[str, dict], entry: dict) -> str:
    """Variants with their losses and scores."""
    shares = list(next(iter(rows.values()))["losses"])
    columns = [name for name in COLUMNS if all(name in row["scores"] for row in rows.values())]
    lines = [["", "TFLOP", *(f"loss at {share}" for share in shares), *columns]]
    for name, row in rows.items():
        losses = [f"{row['losses'][share]:.2f}" for share in shares]
        lines.append([name, f"{row['teraflop']:.0f}", *losses, *cells(_scores(row), columns)])
    return _markdown(lines, entry)


def report_table(rows: list[dict], entry: dict) -> str:
    """Rows of an `embinv evaluate` report: inversions, floors and parts."""
    rows = [row for row in rows if row["section"] != "length"]
    columns = [name for name in COLUMNS if name in rows[0]["scores"]]
    calls = ["encoder calls"] if any(row.get("feedback_calls") for row in rows) else []
    lines = [["", "texts", "passes", *calls, *columns]]
    for row in rows:
        cost = [str(row["num_forward_passes"] or ""), *(f"{row['feedback_calls']:.0f}" for _ in calls)]
        lines.append([row["name"], str(row["texts"]), *cost, *cells(_scores(row), columns)])
    return _markdown(lines, entry)


def cost_table(rows: dict[str, dict], entry: dict) -> str:
    """Methods with what a text costs, and their scores."""
    columns = ["token F1", "exact", "BLEU", "cosine"]
    lines = [["", "texts", "passes", "encoder calls", "surrogate calls", "GFLOP", "seconds", *columns]]
    for name, row in rows.items():
        counts = [f"{row[kind]:.0f}" for kind in ("passes", "encoder_calls", "surrogate_calls", "gflop")]
        lines.append([name, str(row["texts"]), *counts, f"{row['seconds']:.2g}", *cells(_scores(row), columns)])
    return _markdown(lines, entry)


def score_table(rows: dict[str, dict], columns: list[str], entry: dict) -> str:
    """Scores of any kind, two digits each."""
    lines = [[name, *(Score(**row[column]).shown(2) for column in columns)] for name, row in rows.items()]
    return _markdown([["", *columns], *lines], entry)


def _scores(row: dict) -> dict[str, Score]:
    return {name: Score(**score) for name, score in row["scores"].items()}


def _markdown(lines: list[list[str]], entry: dict) -> str:
    """A table, with the paper's column at its end where there is one."""
    if "paper" in entry:
        lines = [[*line, entry["paper"].get(line[0], "")] for line in lines]
        lines[0][-1] = entry["heading"]
    return markdown_table(lines)


if __name__ == "__main__":
    main()
