"""What an audit's attacker recovers who has texts on the store's subject, beside those who have none.

    python experiments/subject.py FOLDER        # goes on where it was; --only "health questions" for one store

FOLDER and the texts are those of fine_tuning.py: a store holds its held-out texts, and the attacker has a thousand
others of the kind. Writes `results/subject.json`.
"""

import argparse
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from elsewhere import CHECKPOINT
from fine_tuning import KINDS, RUNS, SIZE, Kind, kinds_of

from modeling_embinv.cli.main import main as embinv
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import Encoder, load_encoder
from modeling_embinv.data.files import write_json, write_text
from modeling_embinv.repository import load_config

RESULTS = Path(__file__).parent / "results" / "subject.json"
COLUMNS = ["rows", "content words %", "whole texts %"]
# columns of the table → figures of a report
FIGURES = {"content words %": "words", "whole texts %": "exact"}
ATTACKED = 50


def audited(folder: Path, kind: Kind, encoder: Encoder) -> dict:
    """The report of an audit of the kind's held-out texts; one that lies in the folder is not made again."""
    report, store, known = folder / "report", folder / "store.parquet", folder / "known.txt"
    if not (report / "report.json").exists():
        vectors = pa.array(list(encoder.encode(kind.held_out).numpy()), pa.list_(pa.float32()))
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"embedding": vectors, "body": kind.held_out}), store)
        write_text(known, "\n".join(document.text for document in kind.known[:SIZE]))
        status = embinv(
            ["audit", str(store), "--model", str(CHECKPOINT), "--text-column", "body", "--out", str(report), "--int8",
             "--tiers", "vectors,encoder,subject", "--limit", str(ATTACKED), "--train-texts", str(known)]
        )  # fmt: skip
        if status:
            raise SystemExit(status)
    return json.loads((report / "report.json").read_text(encoding="utf-8"))


def rows_of(report: dict) -> dict[str, dict]:
    """A row for each attacker, and one for the nearest of the texts that the last one knows."""
    rows = {}
    for tier in report["tiers"]:
        rows[tier["name"]] = {"rows": tier["rows"], **{
            column: shares(tier["figures"][name]) for column, name in FIGURES.items()
        }}  # fmt: skip
        if tier["nearest_known_text"]:
            rows["the nearest of its texts"] = {
                "rows": tier["rows"], "content words %": shares(tier["nearest_known_text"])
            }  # fmt: skip
    return rows


def shares(figure: dict) -> dict[str, float]:
    """A figure of a report, in percent."""
    return {"mean": 100 * figure["value"], "low": 100 * figure["low"], "high": 100 * figure["high"]}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the published files")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    options = parser.parse_args(arguments)
    encoder = load_encoder(EncoderConfig.of_inverter(load_config(CHECKPOINT)))
    kinds = kinds_of(options.folder, encoder)
    for name in options.only:
        report = audited(RUNS.with_name("subject") / name.replace(" ", "_"), kinds[name], encoder)
        found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        found[name] = {"columns": COLUMNS, "digits": 0, "rows": rows_of(report)}
        print(name, json.dumps(found[name]["rows"]), flush=True)
        write_json(RESULTS, {name: found[name] for name in KINDS if name in found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
