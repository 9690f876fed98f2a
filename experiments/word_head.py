"""Which words are in a vector: precision and recall of the word head, by length of text.

    python experiments/word_head.py --fit   # the calibration of its probabilities, on other texts; into the checkpoint
    python experiments/word_head.py

Floors: the words that most training texts of the same length hold, whatever the vector, and another text's vector. A
word that is not one token of the vocabulary is never named, and counts as missed. Writes `results/words.json`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modeling_embinv.data.batches import embed_rows
from modeling_embinv.data.chunks import ChunkSampler
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.files import write_json
from modeling_embinv.data.settings import load_yaml
from modeling_embinv.data.sources import read_texts, texts_digest
from modeling_embinv.data.spans import TokenizedCorpus
from modeling_embinv.data.tokens import tokenize
from modeling_embinv.evaluation.calibration import expected_calibration_error
from modeling_embinv.evaluation.held_out import Score
from modeling_embinv.evaluation.word_scores import average_precision, fit_words, ratio
from modeling_embinv.loading import load_inverter
from modeling_embinv.vocabulary_embinv import WordVocabulary

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "words.json"
SPECIALS = 2


@dataclass
class Texts:
    """N held-out texts of one length.

    ids: (N, L). vectors: (N, D). present: (N, V) bool, their words that are tokens. words: (N,) all their words.
    content_words: (N,) those that are no frequent words.
    """

    ids: Tensor
    vectors: Tensor
    present: Tensor
    words: Tensor
    content_words: Tensor


class Bench:
    """The model, its encoder, the training corpus and the held-out texts."""

    def __init__(self, experiment: dict, token_cache: str | None) -> None:
        self.experiment = experiment
        self.model, self.tokenizer = load_inverter(experiment["model"])
        self.model.eval()
        self.encoder = load_encoder(EncoderConfig.of_inverter(self.model.config))
        self.encoder.read_whole_texts()
        self.vocabulary = WordVocabulary.of(self.tokenizer)
        training = load_yaml(experiment["training"])
        cache = Path(token_cache or training["token_cache"]) / texts_digest(training["texts"], "text")
        self.corpus = TokenizedCorpus.build(read_texts(training["texts"]), self.encoder.vocabulary, cache)
        self.frequent = self._frequent(experiment["frequent"])

    def _frequent(self, count: int) -> Tensor:
        """(V,) bool: the most frequent words of the training corpus."""
        is_word, continues = np.array(self.vocabulary.is_word), np.array(self.vocabulary.continues)
        ids = self.corpus.ids
        whole = is_word[ids[:-1]] & ~continues[ids[1:]]
        counts = np.bincount(ids[:-1][whole], minlength=len(is_word))
        frequent = torch.zeros(len(is_word), dtype=torch.bool)
        frequent[torch.from_numpy(counts).argsort(descending=True)[:count]] = True
        return frequent

    def texts(self, length: int, is_test: bool) -> Texts:
        """Texts of `length` tokens, the parts in turn."""
        paths = sorted(Path(self.experiment["held_out"]).glob("*.txt"))
        parts = [self._chunks(path, length - SPECIALS, is_test) for path in paths]
        rows: list[list[int]] = []
        while parts and len(rows) < self.experiment["texts"]:
            for part in list(parts):
                if (row := next(part, None)) is None:
                    parts.remove(part)
                else:
                    rows.append(row)
        rows = rows[: self.experiment["texts"]]
        end = self.model.config.eos_token_id
        ids = torch.tensor([row + [end] * (length - len(row)) for row in rows])
        present = self.vocabulary.present(ids)
        rare = torch.tensor([self._words_of_pieces(row) for row in rows])  # frequent ones are all tokens
        counts = present.sum(dim=1) + rare, (present & ~self.frequent).sum(dim=1) + rare
        return Texts(ids, embed_rows(self.encoder, ids), present, *counts)

    def _chunks(self, path: Path, size: int, is_test: bool) -> Iterator[list[int]]:
        """Consecutive lines of a part, cut to texts of about `size` tokens, without a word that is cut."""
        lines = path.read_text(encoding="utf-8").splitlines()[0 if is_test else 1 :: 2]
        starts, ids = self.encoder.vocabulary.word_starts, []
        for row in tokenize(self.tokenizer, lines):
            if self.encoder.vocabulary.special[row].any():
                continue
            ids += row
            if len(ids) > size:
                cut = max(index for index in range(1, size + 1) if starts[ids[index]])
                yield ids[:cut]
                ids = []

    def _words_of_pieces(self, ids: list[int]) -> int:
        """How many different words of a text are several tokens."""
        found, word = set(), []
        for token in [*ids, self.model.config.eos_token_id]:
            if self.vocabulary.continues[token]:
                word.append(token)
                continue
            if len(word) > 1:
                found.add(tuple(word))
            word = [token] if self.vocabulary.is_word[token] else []
        return len(found)

    def shares(self, length: int) -> Tensor:
        """(V,) the share of training texts of `length` tokens that hold each word."""
        sampler, size = ChunkSampler(self.corpus, length - SPECIALS, length - SPECIALS, seed=1), 100
        batches = range(self.experiment["counted"] // size)
        present = (self.vocabulary.present(sampler.batch(index, size)) for index in batches)
        return torch.stack([rows.float().mean(dim=0) for rows in present]).mean(dim=0)


def scores(p: Tensor, texts: Texts, thresholds: list[float], words: Tensor, counts: Tensor) -> dict:
    """A row of a table: of those words that `words` (V,) bool names, `counts` (N,) of which are in each text."""
    p, present = p[:, words], texts.present[:, words]
    row: dict = {"words in a text": float(counts.float().mean())}
    for least in thresholds:
        named = p >= least
        hits = (named & present).sum(dim=1)
        row[f"precision at {least} %"] = _percent(ratio(hits, named.sum(dim=1)))
        row[f"recall at {least} %"] = _percent(ratio(hits, counts))
    # a word that is no token is never found, at whatever rank
    found = average_precision(p, present).nan_to_num() * present.sum(dim=1)
    row["average precision %"] = _percent(ratio(found, counts, by_text=True))
    listed = p >= min(thresholds)
    if listed.any():
        row["ECE %"] = 100 * expected_calibration_error(p[listed], present[listed])
    return row


def _percent(score: Score | None) -> dict | None:
    return None if score is None else {name: 100 * value for name, value in asdict(score).items()}


def called(p: Tensor, present: Tensor, low: float, high: float) -> dict:
    """Of the words called with a probability of `low` to `high`: how many, their mean probability, the share there."""
    inside = (p >= low) & (p < high)
    share = ratio((inside & present).sum(dim=1), inside.sum(dim=1))
    return {
        "words": int(inside.sum()),
        "mean probability %": 100 * float(p[inside].mean()),
        "there %": _percent(share),
    }


def measure(bench: Bench) -> dict:
    """All tables."""
    thresholds = bench.experiment["thresholds"]
    names = [f"{kind} at {least} %" for least in thresholds for kind in ("precision", "recall")]
    columns = ["words in a text", *names, "average precision %", "ECE %"]
    tables = {name: {"columns": columns, "digits": 1, "rows": {}} for name in ("all", "content", "floors")}
    is_word, _ = bench.vocabulary.masks
    of_all, of_present = [], []
    for length in bench.experiment["lengths"]:
        texts = bench.texts(length, is_test=True)
        with torch.no_grad():
            p = bench.model.word_probabilities(texts.vectors)
        everything = is_word, texts.words
        content = is_word & ~bench.frequent, texts.content_words
        name, share = f"{length} tokens", bench.shares(length).expand_as(p)
        for table, row, values, kind in (
            ("all", name, p, everything),
            ("content", name, p, content),
            ("floors", f"{name}, most frequent words", share, everything),
            ("floors", f"{name}, another text's vector", p.roll(1, dims=0), everything),
            ("floors", f"{name}, most frequent content words", share, content),
            ("floors", f"{name}, another text's vector, content words", p.roll(1, dims=0), content),
        ):
            tables[table]["rows"][row] = {"texts": len(p), **scores(values, texts, thresholds, *kind)}
            print(table, row, tables[table]["rows"][row], flush=True)
        of_all.append(p[:, is_word])
        of_present.append(texts.present[:, is_word])
    p, present = torch.cat(of_all), torch.cat(of_present)
    edges = [0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95, 1.01]
    bins = {
        f"{100 * low:.0f} to {min(100 * high, 100):.0f} %": called(p, present, low, high)
        for low, high in pairwise(edges)
    }
    columns = ["words", "mean probability %", "there %"]
    calibration = {"columns": columns, "digits": 1, "rows": bins}
    return {**tables, "calibration": calibration}


def fit(bench: Bench) -> dict[str, float]:
    """The calibration, on other texts than those that the tables are of."""
    parts = [bench.texts(length, is_test=False) for length in bench.experiment["lengths"]]
    with torch.no_grad():
        p = torch.cat([bench.model.word_probabilities(part.vectors, is_calibrated=False) for part in parts])
    return asdict(fit_words(p, torch.cat([part.present for part in parts])))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the calibration, and write it into the checkpoint")
    parser.add_argument("--token-cache", help="folder of the tokenised training corpus; the recipe's own by default")
    parser.add_argument("--model", help="another model than the released checkpoint; its scores need --out")
    parser.add_argument("--out", type=Path, help="file of the scores; results/words.json by default")
    options = parser.parse_args(arguments)
    if options.model and not (options.fit or options.out):
        parser.error(f"{RESULTS.name} has the scores of the released checkpoint: name another file with --out.")
    experiment = load_yaml(FOLDER / "word_head.yaml")
    experiment["model"] = options.model or experiment["model"]
    bench = Bench(experiment, options.token_cache)
    if options.fit:
        config = bench.model.generation_config
        config.calibration = {**(config.calibration or {}), "words": fit(bench)}
        config.save_pretrained(experiment["model"])
        print(config.calibration["words"])
        return 0
    write_json(options.out or RESULTS, measure(bench))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
