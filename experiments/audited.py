"""The run that docs/audit.md shows: `embinv audit` of 300 held-out requests, with guesses.

    python experiments/audited.py        # two minutes of one core

Writes `results/audited.json`: the command, what it printed, and the figures that the page mentions. `make results`
puts them there.
"""

import json
import resource
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import datasets

from modeling_embinv.audit.guesses import Guesses, Rates
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.sources import read_texts

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "audited.json"
CORPUS = FOLDER.parents[1] / "shared" / "corpus" / "heldout" / "en"
PARTS, OF_EACH = ("banking", "assistant", "restaurant"), 100
# two stand in the store, the third says otherwise what one there does, and the last two are of other subjects
GUESSES = (
    "Can I top up my account with a cheque?",
    "find the next holiday",
    "How many days until my refund arrives?",
    "The results of the biopsy came back this morning.",
    "Sales fell by a tenth in the second quarter.",
)
COMMAND = """embinv audit requests.parquet --column embedding --text-column body --id-column ticket --out report \\
    --limit 50 --encoder-limit 10 --int8 --candidates guesses.txt --fail-over words=0.3"""


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_store(folder)
        command = [str(Path(sys.executable).with_name("embinv")), *COMMAND.replace("\\\n", "").split()[1:]]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if not (folder / "report" / "report.json").exists():
            raise SystemExit(f"the audit stopped with exit status {run.returncode}:\n{run.stderr.strip()}")
        mistakes = [line for line in run.stderr.splitlines() if line.startswith("embinv: over the threshold")]
        report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    guesses = Guesses([], [Rates(**rates) for rates in report["guesses"]["rates"]], report["guesses"]["rows"])
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "requests": len(texts),
        "attacked": report["sample"]["rows"],
        "guesses": len(GUESSES),
        "CPU minutes": round((seconds.ru_utime + seconds.ru_stime) / 60, 1),
        "alarms by the subject %": 100 * guesses.on_topic,
        "command": COMMAND,
        "output": "\n".join([*run.stdout.rstrip().splitlines(), *mistakes]),
        "status": run.returncode,
    }
    write_json(RESULTS, result)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 0


def write_store(folder: Path) -> list[str]:
    """The store and the guesses, as files; the store's texts."""
    files = [CORPUS / f"queries-{part}.txt" for part in PARTS]
    texts = [document.text for path in files for document in islice(read_texts(path), OF_EACH)]
    vectors = load_encoder("sentence-transformers/all-MiniLM-L6-v2").encode(texts)
    tickets = [f"T-{number:04}" for number in range(1, len(texts) + 1)]
    store = datasets.Dataset.from_dict({"ticket": tickets, "body": texts, "embedding": vectors.tolist()})
    store.to_parquet(folder / "requests.parquet")
    (folder / "guesses.txt").write_text("\n".join(GUESSES), encoding="utf-8")
    return texts


if __name__ == "__main__":
    sys.exit(main())
