"""Single words that the word head names: what is counted, what is hidden, and what a checkpoint without one says."""

import json

import numpy as np
import pytest
import torch

from modeling_embinv.audit.files import write_report
from modeling_embinv.audit.named_words import LEAST, THRESHOLDS, NamedWords, _figures, name_words
from modeling_embinv.audit.page import page
from modeling_embinv.audit.report import Report
from modeling_embinv.audit.sample import Sample
from modeling_embinv.audit.terminal import lines
from modeling_embinv.audit.words import FRAGMENTS
from modeling_embinv.training.backbone import prepare_tokenizer
from tests.audit.conftest import report_of, tier_result
from tests.hub.tiny_folder import new_tiny_inverter

TEXTS = ["The bank lost my money", "A train to Oslo, a train to Lima"]
NAMED = [[("money", 0.9), ("bank", 0.4), ("river", 0.3)], [("train", 0.6), ("bank", 0.2)]]


def test_precision_recall_and_floor_are_those_of_a_hand():
    """Words counted twice, a floor from the row's own vector, or stop words among the wanted."""
    low, high = (_figures("all", NAMED, TEXTS, threshold, 0) for threshold in THRESHOLDS)
    assert THRESHOLDS == (0.2, 0.5) and (low.named, high.named) == (5, 2)
    # wanted: bank, lost, money; train, oslo, lima. Named and there: money, bank; train
    assert (low.precision.hits, low.precision.count) == (3, 5) and (low.recall.hits, low.recall.count) == (3, 6)
    assert (high.precision.value, high.recall.value) == (1, pytest.approx(2 / 6))
    # the other row's names: bank is in the first text
    assert list(low.precision.floors.values()) == [1 / 5] and list(low.recall.floors.values()) == [1 / 6]
    assert low.expected.value == pytest.approx((0.9 + 0.4 + 0.3 + 0.6 + 0.2) / 5)
    # a row between two of one text has another, and rows that are all of one text have none
    copies = _figures("all", [NAMED[0], NAMED[0], NAMED[1]], [TEXTS[0], TEXTS[0], TEXTS[1]], LEAST, 0)
    assert list(copies.precision.floors.values()) == [2 / 7]  # of the 2 + 2 + 3 words that the other rows name
    assert _figures("all", NAMED, [TEXTS[0]] * 2, LEAST, 0).precision.floors == {}
    bare = _figures("all", NAMED, None, LEAST, 0)
    assert bare.precision is bare.recall is None and bare.expected == low.expected


def test_the_floor_of_precision_is_a_share_of_the_words_that_are_looked_for():
    """A floor of 260 %: words named in the other row, divided by the number of those of the row itself."""
    long = "bank card fee transfer oslo account"
    named = [[("bank", 0.5)]] * 5 + [[(word, 0.5) for word in long.split()]]
    figures = _figures("all", named, ["the bank card fee"] * 5 + [long], LEAST, 0)
    # five rows look for the six words of the long one, of which three are there, and the long one for "bank"
    assert list(figures.precision.floors.values()) == [(5 * 3 + 1) / (5 * 6 + 1)]


@pytest.fixture(scope="module")
def inverter(encoder):
    """A tiny inverter with a word head that names many words."""
    torch.manual_seed(0)
    model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384, word_head_size=8)
    torch.nn.init.normal_(model.word_head.dense_out.weight, std=3.0)
    return model, prepare_tokenizer(encoder.tokenizer)


def test_each_row_has_the_words_of_its_own_vector(inverter, encoder):
    """Another row's words, stop words, or words below the least probability."""
    model, tokenizer = inverter
    texts = ["The train to Oslo was late.", *(f"word{number} " * 30 for number in range(5))]
    sample = Sample(3 * encoder.encode(texts).numpy(), np.array([4, 9, 10, 11, 12, 13]), None, texts, 6, "")
    found = name_words(model, tokenizer, sample)
    assert list(found.by_row) == [(None, row) for row in (4, 9, 10, 11, 12, 13)]
    (alone,) = name_words(model, tokenizer, sample.take(np.array([1]))).by_row.values()
    by_word = {key: dict(words) for key, words in found.by_row.items()}
    assert by_word[None, 9] == pytest.approx(dict(alone), abs=1e-4)
    assert by_word[None, 4].keys() != by_word[None, 9].keys()
    assert alone and min(dict(alone).values()) >= LEAST and not {"the", "to", "was"} & dict(alone).keys()
    assert [one.texts for one in found.figures] == ["all"] * 2 + ["longer than 11 tokens"] * 2
    assert [one.rows for one in found.figures] == [6, 6, 5, 5]
    few = name_words(model, tokenizer, sample.take(np.arange(3)))  # two long texts say too little
    assert [one.texts for one in few.figures] == ["all"] * 2


def test_rows_without_a_word_count_for_nothing(inverter, encoder):
    """Words named in rows without a text were all wrong: a precision of 8/30, where 8 of 19 could be right."""
    model, tokenizer = inverter
    texts = [TEXTS[0], "", TEXTS[1], "\N{PARTY POPPER} ...", *["word " * 30] * 5]
    sample = Sample(encoder.encode(texts).numpy(), np.arange(len(texts)), None, texts, len(texts), "")
    told = np.array([row for row, text in enumerate(texts) if any(map(str.isalpha, text))])
    mixed, alone = (name_words(model, tokenizer, one) for one in (sample, sample.take(told)))
    assert len(mixed.by_row) == len(texts) and len(mixed.figures) == 4
    assert mixed.figures == alone.figures and mixed.figures[0].rows == len(told)


def test_parts_of_contractions_are_not_named(inverter, encoder):
    """A list of "don", "isn" and "ll", none of which is a word of the text that it is said of."""
    model, tokenizer = inverter
    sample = Sample(encoder.encode(TEXTS).numpy(), np.arange(2), None, TEXTS, 2, "")
    said = {word for row in model.words(torch.from_numpy(sample.vectors), tokenizer, LEAST) for word, _ in row}
    assert said & FRAGMENTS
    named = {word for row in name_words(model, tokenizer, sample).by_row.values() for word, _ in row}
    assert named and not named & FRAGMENTS


def report(reveal: bool, texts=TEXTS) -> Report:
    figures = [_figures("all", NAMED, texts, threshold, 0) for threshold in THRESHOLDS]
    named = NamedWords({(None, 0): NAMED[0], (None, 1): NAMED[1]}, figures)
    return report_of(tier_result(TEXTS, ["x", "y"]), named_words=named, reveal=reveal)


@pytest.mark.parametrize("reveal", [False, True])
def test_named_words_are_hidden_unless_they_are_revealed(reveal, tmp_path):
    """A file that hides the texts and lists their words; probabilities say nothing of a word."""
    write_report(report(reveal), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[one["probability"] for one in row["named_words"]] for row in rows] == [[0.9, 0.4, 0.3], [0.6, 0.2]]
    shown = {one["word"] for row in rows for one in row["named_words"]}
    assert shown == ({"money", "bank", "river", "train"} if reveal else {"▇▇▇"})
    figures = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["named_words"]["figures"]
    assert figures[0]["precision"]["hits"] == 3 and "river" not in json.dumps(figures)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert ("named by the word head: money 90 %, bank 40 %, river 30 %" in text) == reveal
    assert ("the word head names 3 words, 2 of them right" in text) == (not reveal) and ("river" in text) == reveal


def test_page_and_terminal_say_what_is_measured_and_what_is_an_estimate():
    """A share that should be there, shown as one that is."""
    (line,) = [line for line in lines(report(False)) if line.startswith("words ")]
    assert "50 % [" in line and "60 % [" in line and "are there" in line
    assert "Are there" in page(report(False)) and "longer than" not in line
    (line,) = [line for line in lines(report(False, None)) if line.startswith("words ")]
    assert "5 content words" in line and "should be there" in line
    assert "Are there" not in page(report(False, None)) and "<strong>estimate" in page(report(False, None))


def test_no_word_named_is_no_store_without_texts():
    """Where no word reached 20 %, the page said that the store holds no texts, and the terminal a name alone."""
    figures = [_figures("all", [[], []], TEXTS, threshold, 0) for threshold in THRESHOLDS]
    found = report_of(tier_result(TEXTS, ["x", "y"]), named_words=NamedWords({(None, 0): [], (None, 1): []}, figures))
    assert [line for line in lines(found) if line.startswith("words")] == ["words       no word named"]
    section = page(found).partition("<h2>Words in the vectors</h2>")[2].partition("<h2>")[0]
    assert "No word is named" in section and "no texts" not in section and "<table" not in section


def test_a_checkpoint_without_a_word_head_names_nothing(encoder):
    """An error at the end of hours, or a section of zeros."""
    model = new_tiny_inverter(encoder.tokenizer, embedding_dim=384)
    sample = Sample(encoder.encode(TEXTS).numpy(), np.arange(2), None, TEXTS, 2, "")
    assert name_words(model, prepare_tokenizer(encoder.tokenizer), sample) is None
    plain = report_of(tier_result(TEXTS, ["x", "y"]))
    assert plain.as_dict()["named_words"] is None and "Words in the vectors" not in page(plain)
    assert not [line for line in lines(plain) if line.startswith("words ")]
