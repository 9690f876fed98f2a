"""Which words are in the vectors, by the checkpoint's word head: also of texts longer than the checkpoint writes."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..data.tokens import tokenize
from ..evaluation.other_rows import other_rows
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..vectors_embinv import unit_rows
from .figures import Figure, share
from .sample import Sample
from .tiers import OTHER_TEXT
from .words import FRAGMENTS, content_words, plain, text_key, words

# from the least probability on a word is listed; figures are given for each
THRESHOLDS = (0.2, 0.5)
LEAST = min(THRESHOLDS)
# fewer long texts say too little to be counted apart
FEWEST = 5
Words = list[tuple[str, float]]


@dataclass(frozen=True)
class WordFigures:
    """Figures of the content words that are named.

    Attributes:
        texts: which ones, in words. rows: how many, without those whose text has no word.
        threshold: the least probability of a named word.
        named: words, in all rows together.
        expected: the mean probability of a named word: the share that should be there.
        precision: of the named words, the share that is there. recall: of the texts' words, the share that is named.
            None where the store holds no texts; a word of several tokens is never named.
    """

    texts: str
    rows: int
    threshold: float
    named: int
    expected: Figure | None
    precision: Figure | None
    recall: Figure | None


@dataclass(frozen=True)
class NamedWords:
    """The words of a sample's rows.

    Attributes:
        by_row: a row's key, see `Sample.row_keys` → its content words and their probabilities, the largest first.
        figures: of all rows, and of long texts where there are such.
    """

    by_row: dict[tuple[str | None, int], Words]
    figures: list[WordFigures]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, without the words."""
        return {"figures": [asdict(one) for one in self.figures]}


def name_words(
    model: EmbInvForMaskedDiffusion, tokenizer: PreTrainedTokenizerBase, sample: Sample, seed: int = 0
) -> NamedWords | None:
    """The content words that the vectors of a sample hold; None for a checkpoint without a word head.

    Args:
        model, tokenizer: the inverter's.
        sample: the rows, whose texts are compared where it has them.
        seed: of the intervals.
    """
    if model.word_head is None:
        return None
    found = model.words(torch.from_numpy(unit_rows(sample.vectors)[0]), tokenizer, LEAST)
    named = [[(word, p) for word, p in row if content_words(word) and word not in FRAGMENTS] for row in found]
    figures = []
    for texts, rows in _groups(sample, tokenizer, model.config.max_sequence_length - 1):
        own = None if sample.texts is None else [sample.texts[row] for row in rows]
        figures += [_figures(texts, [named[row] for row in rows], own, least, seed) for least in THRESHOLDS]
    return NamedWords(dict(zip(sample.row_keys(), named, strict=True)), figures)


def _groups(sample: Sample, tokenizer: PreTrainedTokenizerBase, longest: int) -> Iterable[tuple[str, list[int]]]:
    """Which texts with words are counted together: all, and those of more tokens than the checkpoint writes."""
    every = list(range(len(sample.rows)))
    if sample.texts is not None:  # without words no named one can be right or wrong
        every = [row for row in every if words(sample.texts[row])]
    yield "all", every
    sizes = [len(ids) for ids in tokenize(tokenizer, sample.texts or [])]
    long = [row for row in every if sizes and sizes[row] > longest]
    if FEWEST <= len(long) < len(every):
        yield f"longer than {longest} tokens", long


def _figures(
    texts: str, named: Sequence[Words], originals: Sequence[str] | None, threshold: float, seed: int
) -> WordFigures:
    chosen = [{plain(word): p for word, p in row if p >= threshold} for row in named]
    counts = [len(row) for row in chosen]
    expected = share([sum(row.values()) for row in chosen], counts, seed=seed)
    precision = recall = None
    if originals is not None:
        there = [set(words(text)) for text in originals]
        wanted = [content_words(text) for text in originals]

        def hits(rows: Sequence[dict[str, float]]) -> list[float]:
            return [float(len(row.keys() & text)) for row, text in zip(rows, there, strict=True)]

        theirs = [chosen[row] for row in other_rows([text_key(text) for text in originals])]
        precision = share(hits(chosen), counts, seed=seed)
        if precision is not None and (looked_for := sum(map(len, theirs))):
            # other rows name more words or fewer than the row itself
            precision = replace(precision, floors={OTHER_TEXT: sum(hits(theirs)) / looked_for})
        floors = {OTHER_TEXT: hits(theirs)} if theirs else {}
        recall = share(hits(chosen), [len(one) for one in wanted], floors, seed)
    return WordFigures(texts, len(named), threshold, sum(counts), expected, precision, recall)
