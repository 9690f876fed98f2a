"""Make RESULTS.md from `experiments/results/*.json`.

python experiments/results.py > RESULTS.md
"""

import json
from pathlib import Path

from modeling_embinv.evaluation import Score
from modeling_embinv.report import cells

FOLDER = Path(__file__).parent
COLUMNS = ("token accuracy", "token F1", "exact", "BLEU", "cosine")
HEAD = """# Results of the experiments

Each table is one command, `python experiments/run.py experiments/NAME.yaml`, and states its scale. Scores are of
held-out validation texts, confidence decoding in 8 passes, with 95 % bootstrap intervals. *Loss* is in nats a masked
token under the noise of the variant, *fully masked* under none but [MASK]; only that compares variants whose noise
differs.
"""


def main():
    print(HEAD)
    for path in sorted((FOLDER / "results").glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        print(f"## {results['title']}\n\n{results['scale']}. `{path.stem}`\n")
        rows = results["rows"]
        columns = [name for name in COLUMNS if name in next(iter(rows.values()))["scores"]]
        print("| | loss | fully masked | " + " | ".join(columns) + " |")
        print("|" + " --- |" * (len(columns) + 3))
        for name, row in rows.items():
            losses = [f"{row['losses'][key]:.2f}" for key in ("loss", "loss_fully_masked")]
            scores = {column: Score(**row["scores"][column]) for column in columns}
            print(f"| {name} | " + " | ".join(losses + cells(scores, columns)) + " |")
        print()


if __name__ == "__main__":
    main()
