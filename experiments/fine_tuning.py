"""What fine-tuning the released checkpoint on texts of one kind brings, on held-out texts of that kind and of others.

    python experiments/fine_tuning.py FOLDER          # goes on where it was

FOLDER holds collections as they are published: the flight requests of UD English ATIS (en_atis-ud-*.conllu), the SMS
Spam Collection (SMSSpamCollection) and a copy of MedQuAD (MedQuAD/). A text that stands in the training corpus is left
out. Texts are held out by document: questions about one disease are on one side. The recipe is
`configs/fine_tune.yaml`. Writes `results/fine_tuning.json`; with `--recipes`, which tries other settings,
`results/fine_tuning_recipes.json`.
"""

import argparse
import json
import random
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import torch
import yaml
from elsewhere import CHECKPOINT, COLUMNS, TRAINING, known, treebank

from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import Encoder, load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.pairs import load_pairs
from modeling_embinv.data.prepare import prepare
from modeling_embinv.data.sources import Document, read_texts
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.evaluation.held_out import HeldOut, Recovered
from modeling_embinv.loading import load_inverter
from modeling_embinv.presets_embinv import PRESETS
from modeling_embinv.repository import load_config
from modeling_embinv.runtime import keep_large_blocks
from modeling_embinv.training.assemble import train
from modeling_embinv.training.config import TrainingConfig

FOLDER = Path(__file__).parent
RESULTS, RECIPES = (FOLDER / "results" / f"{name}.json" for name in ("fine_tuning", "fine_tuning_recipes"))
RECIPE = FOLDER.parent / "configs" / "fine_tune.yaml"
RUNS = FOLDER.parent / "runs" / "fine_tuning"
# held-out texts of other kinds: what is forgotten
OTHERS = FOLDER.parent.parent / "shared" / "corpus" / "heldout" / "en"
SHORTEST, LONGEST = 4, 31  # tokens
# texts to learn from, and to choose the best weights by: of each kind, and of flight requests besides
SIZE, OTHER_SIZES = 1000, (250, 4000)
VALIDATION_SHARE = 0.1
# held-out texts that are scored, by method
SCORED = {"quick": 300, "standard": 100}
# the preset quick, and what standard was before it chained edits
METHODS = {
    "quick": dict(PRESETS["quick"].settings),
    "standard": dict(num_candidates=24, num_corrections=3, num_beams=2, num_proposals=16, feedback="surrogate"),
}
FLOOR = "floor: vector of another text"
# what the recipe was chosen from: settings that differ from it, on 1,000 texts of one kind; the texts that they are
# scored on are of no other table
TRIED_ON, TRIED_TEXTS = "flight requests", 200
TENTH = {"embedding_rate": 0.1}
TRIED = {
    "the recipe": {},
    "the trunk as it is, too": {"freeze_backbone": True},
    "token embeddings at a tenth of the rate": TENTH,
    "the same, 75 updates": TENTH | {"max_steps": 75},
    "the same, 300 updates": TENTH | {"max_steps": 300},
    "the same, learning rate 3e-4": TENTH | {"learning_rate": 3e-4},
}

# (its document, the text) of each text of a collection
Texts = Iterator[tuple[str, str]]
Method = Callable[[HeldOut], Recovered]
# gives the folder of a checkpoint
Model = Callable[[], Path]


def requests(folder: Path) -> Texts:
    """The flight requests of ATIS."""
    for split in ("train", "dev", "test"):
        for text in treebank(folder / f"en_atis-ud-{split}.conllu"):
            yield text, text


def messages(folder: Path) -> Texts:
    """Text messages; advertisements that differ in their numbers alone are one document."""
    for line in (folder / "SMSSpamCollection").read_text(encoding="utf-8").splitlines():
        text = line.split("\t", 1)[1].strip()
        yield re.sub(r"\W|\d", "", text.lower()), text


def questions(folder: Path) -> Texts:
    """Questions about health; those about one subject are one document."""
    for path in sorted((folder / "MedQuAD").rglob("*.xml")):
        page = ElementTree.parse(path).getroot()
        for question in page.iter("Question"):
            yield (page.findtext("Focus") or path.stem).lower(), (question.text or "").strip()


KINDS: dict[str, Callable[[Path], Texts]] = {
    "flight requests": requests, "text messages": messages, "health questions": questions,
}  # fmt: skip


class Kind:
    """Texts of one kind: shuffled ones to learn from, and held-out ones of other documents.

    Args:
        documents: by text. seen: texts of the training corpus.
    """

    def __init__(self, documents: dict[str, str], seen: set[str]) -> None:
        new, most = [text for text in documents if text not in seen], max(SCORED.values())
        random.Random(0).shuffle(new)
        chosen = {documents[text] for text in new[:most]}
        self.held_out = [text for text in new if documents[text] in chosen][:most]
        self.known = [Document(documents[text], text) for text in new if documents[text] not in chosen][
            : max(OTHER_SIZES)
        ]


def kinds_of(folder: Path, encoder: Encoder) -> dict[str, Kind]:
    """All kinds, of texts of fitting length that stand in no line of the training corpus."""
    every = {}
    for name, read in KINDS.items():
        documents = {text: document for document, text in read(folder) if text}
        sizes = map(len, tokenize(encoder.tokenizer, list(documents)))
        every[name] = {
            text: document
            for (text, document), size in zip(documents.items(), sizes, strict=True)
            if SHORTEST <= size <= LONGEST
        }
    seen = known((text for documents in every.values() for text in documents), TRAINING)
    found = {name: Kind(documents, seen) for name, documents in every.items()}
    for name, kind in found.items():
        print(f"{name}: {len(every[name])} texts, {len(kind.known)} of them to learn from", flush=True)
    return found


def held_out_of_others() -> list[str]:
    """Texts of the parts that the released checkpoint is scored on, as many of each."""
    files = sorted(OTHERS.glob("*.txt"))
    each = -(-SCORED["quick"] // len(files))
    texts = [[document.text for document in read_texts(path)][:each] for path in files]
    return [text for part in texts for text in part]


def released() -> Path:
    """The folder of the released checkpoint."""
    return CHECKPOINT


def prepared(name: str, documents: list[Document], encoder: Encoder) -> Path:
    """The folder of some documents of a kind, in which their pairs lie."""
    folder = RUNS / f"{name} {len(documents)}".replace(" ", "_")
    prepare(documents, encoder, folder / "pairs", LONGEST + 1, validation_share=VALIDATION_SHARE)
    return folder


def nearest_of(name: str, documents: list[Document], encoder: Encoder, held_out: HeldOut) -> Recovered:
    """The nearest of the texts that were learned."""
    pairs = load_pairs(prepared(name, documents, encoder) / "pairs", "train")
    return held_out.nearest_training_text(pairs=pairs)


def tuned(name: str, documents: list[Document], encoder: Encoder, variant: str = "the recipe") -> Path:
    """The folder of the checkpoint that learned from the documents; finished ones are not trained again."""
    folder = prepared(name, documents, encoder)
    run = folder / variant.replace(" ", "_")
    places = {"output_dir": str(run), "pairs": str(folder / "pairs"), "init_from": str(CHECKPOINT)}
    train(TrainingConfig(**yaml.safe_load(RECIPE.read_text()) | places | TRIED[variant]))
    return run / "best"


class Scores:
    """The rows of all tables, saved one by one; those that are there are not measured again."""

    def __init__(self, encoder: Encoder, file: Path) -> None:
        self.encoder, self.file = encoder, file

    def rows(self, table: str) -> tuple[dict, dict]:
        """All that was found so far, by other processes as well, and the rows of a table in it."""
        found = json.loads(self.file.read_text()) if self.file.exists() else {}
        return found, found.setdefault(table, {"columns": COLUMNS, "digits": 1, "rows": {}})["rows"]

    def add(self, table: str, row: str, texts: list[str], model: Model, recover: Method) -> None:
        if row in self.rows(table)[1]:
            return
        folder = model()  # trains where that is not done
        with torch.no_grad():
            inverter, tokenizer = load_inverter(folder)
            held_out = HeldOut.of_texts(inverter.eval().to_int8(), tokenizer, self.encoder, texts)[0]
            scores = held_out.measure(recover(held_out)).scores()
        found, rows = self.rows(table)
        rows[row] = {"texts": len(held_out.texts), **{name: asdict(scores[name]) for name in COLUMNS[1:]}}
        print(table, row, json.dumps(rows[row]), flush=True)
        write_json(self.file, found)

    def add_methods(self, table: str, name: str, texts: list[str], model: Model) -> None:
        for method, count in SCORED.items():
            self.add(table, f"{name}, {method}", texts[:count], model, partial(HeldOut.invert, **METHODS[method]))


def try_recipes(kind: Kind, scores: Scores, variants: list[str]) -> int:
    """Fills the table "recipes"; its texts are documents that neither trained these runs nor are scored elsewhere."""
    documents, texts = kind.known[:SIZE], [document.text for document in kind.known[-TRIED_TEXTS:]]
    scores.add("recipes", "released", texts, released, HeldOut.invert)
    for variant in variants:
        model = partial(tuned, TRIED_ON, documents, scores.encoder, variant)
        scores.add("recipes", variant, texts, model, HeldOut.invert)
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the published files")
    parser.add_argument("--recipes", action="store_true", help="try other settings than the recipe's instead")
    parser.add_argument("--only", nargs="+", help="kinds or settings, so that two processes can share the work")
    options = parser.parse_args(arguments)
    keep_large_blocks()
    encoder = load_encoder(EncoderConfig.of_inverter(load_config(CHECKPOINT)))
    scores = Scores(encoder, RECIPES if options.recipes else RESULTS)
    kinds = kinds_of(options.folder, encoder)
    if options.recipes:
        return try_recipes(kinds[TRIED_ON], scores, options.only or list(TRIED))
    others = held_out_of_others()
    scores.add("others", "released", others, released, HeldOut.invert)
    for name in options.only or kinds:
        kind = kinds[name]
        scores.add_methods(name, "released", kind.held_out, released)
        scores.add(name, FLOOR, kind.held_out, released, HeldOut.other_text)
        for size in sorted((SIZE, *OTHER_SIZES)) if name == TRIED_ON else (SIZE,):
            learned, documents = f"{size:,} texts", kind.known[:size]
            best = cache(partial(tuned, name, documents, encoder))
            scores.add_methods(name, f"fine-tuned on {learned}", kind.held_out, best)
            nearest = partial(nearest_of, name, documents, encoder)
            scores.add(name, f"floor: nearest of {learned}", kind.held_out, released, nearest)
            scores.add("others", f"fine-tuned on {learned} of {name}", others, best, HeldOut.invert)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
