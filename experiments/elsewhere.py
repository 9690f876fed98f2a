"""Quality on published texts that are no part of the training corpus: questions, captions, Wikipedia, news, requests.

    python experiments/elsewhere.py FOLDER          # goes on where it was

FOLDER holds the files as they are published (names in `SOURCES`): the test questions of TREC, the test split of
STS-B, the tuning sentences of WikiSplit, and the test split of UD English ATIS. A text that stands in the training
corpus, too, is left out. The checkpoint is loaded as a user of the Hub loads it. Writes `results/elsewhere.json`.
"""

import argparse
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.evaluation.held_out import HeldOut
from modeling_embinv.presets_embinv import PRESETS
from modeling_embinv.runtime import keep_large_blocks

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "elsewhere.json"
CHECKPOINT = FOLDER.parent / "checkpoints" / "embinv-minilm"
TRAINING = FOLDER.parent.parent / "shared" / "corpus" / "en"
# a text is looked for in the corpus by its first words
SHINGLE = 6
SHORT, LONG = (4, 15), (16, 31)  # fewest and most tokens
FLOOR = "floor: vector of another text"
# (table, beginning of the row, tokens, preset or floor, texts of each kind)
MEASURED = [
    ("kinds", "", SHORT, "quick", 150),
    ("kinds", "", SHORT, "standard", 60),
    *(("lengths", "at most 15 tokens", SHORT, method, 12) for method in (*PRESETS, FLOOR)),
    *(("lengths", "16 to 31 tokens", LONG, method, 12) for method in (*PRESETS, FLOOR)),
]
COLUMNS = ["texts", "token F1", "exact", "BLEU", "cosine"]


def labelled(path: Path) -> Iterable[str]:
    """TREC's questions, one a line behind its label."""
    return (line.split(" ", 1)[1] for line in path.read_text(encoding="latin-1").splitlines())


def benchmark(path: Path, genre: str) -> Iterable[str]:
    """The first sentences of a genre of STS-B."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return (row[5] for row in rows if row[0] == genre)


def halves(path: Path) -> Iterable[str]:
    """The sentences that WikiSplit makes of one."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield from (half.strip() for half in line.split("\t")[1].split("<::::>"))


def treebank(path: Path) -> Iterable[str]:
    """The sentences of a CoNLL-U file."""
    return re.findall(r"^# text = (.+)$", path.read_text(encoding="utf-8"), flags=re.M)


SOURCES: dict[str, tuple[str, Callable[[Path], Iterable[str]]]] = {
    "questions": ("TREC_10.en.label", labelled),
    "captions": ("sts-test.csv", partial(benchmark, genre="main-captions")),
    "Wikipedia": ("tune.tsv", halves),
    "news": ("sts-test.csv", partial(benchmark, genre="main-news")),
    "requests": ("en_atis-ud-test.conllu", treebank),
}


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def known(texts: Iterable[str], corpus: Path) -> set[str]:
    """Those of the texts whose words stand one after another in a line of the training corpus."""
    wanted: dict[tuple[str, ...], list[tuple[tuple[str, ...], str]]] = {}
    for text in texts:
        wanted.setdefault(words(text)[:SHINGLE], []).append((words(text), text))
    lengths, found = {len(start) for start in wanted}, set()
    for path in sorted(corpus.glob("*.txt.xz")):
        for line in map(words, lzma.decompress(path.read_bytes()).decode().splitlines()):
            for start in range(len(line)):
                for length in lengths:
                    for whole, text in wanted.get(line[start : start + length], ()):
                        if line[start : start + len(whole)] == whole:
                            found.add(text)
    return found


def measured(held_out: HeldOut, method: str) -> dict:
    """Scores of a preset or of the floor."""
    if method == FLOOR:
        recovered = held_out.other_text()
    else:
        recovered = held_out.invert(**PRESETS[method].settings, feedback=PRESETS[method].feedback)
    scores = held_out.measure(recovered).scores()
    return {"texts": len(held_out.texts), **{name: asdict(scores[name]) for name in COLUMNS[1:]}}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the published files")
    options = parser.parse_args(arguments)
    names = dict.fromkeys(name for name, _ in SOURCES.values())
    if missing := [name for name in names if not (options.folder / name).is_file()]:
        parser.error(f"{options.folder} holds no {', '.join(missing)}")
    if not any(TRAINING.glob("*.txt.xz")):
        parser.error(f"{TRAINING} holds no .txt.xz file of the training corpus, whose texts are left out")
    keep_large_blocks()
    model = AutoModel.from_pretrained(CHECKPOINT, trust_remote_code=True).eval().to_int8()
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    encoder = load_encoder(EncoderConfig.of_inverter(model.config))
    every = {kind: list(dict.fromkeys(read(options.folder / name))) for kind, (name, read) in SOURCES.items()}
    seen = known((text for texts in every.values() for text in texts), TRAINING)
    print(len(seen), "texts stand in the corpus and are left out", flush=True)
    new = {kind: [text for text in texts if text not in seen] for kind, texts in every.items()}
    sizes = {kind: [len(ids) for ids in tokenize(encoder.tokenizer, texts)] for kind, texts in new.items()}
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for table, start, (fewest, most), method, number in MEASURED:
        rows = found.setdefault(table, {"columns": COLUMNS, "digits": 1, "rows": {}})["rows"]
        chosen = {
            kind: [text for text, size in zip(texts, sizes[kind], strict=True) if fewest <= size <= most][:number]
            for kind, texts in new.items()
        }
        if start:
            chosen = {start: [text for texts in chosen.values() for text in texts]}
        for name, texts in chosen.items():
            if (row := f"{name}, {method}") not in rows:
                rows[row] = measured(HeldOut.of_texts(model, tokenizer, encoder, texts)[0], method)
                print(table, row, json.dumps(rows[row]), flush=True)
                write_json(RESULTS, found)
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main(sys.argv[1:]))
