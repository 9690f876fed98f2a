"""Which attackers are tried, and what a report says where nothing was measured."""

import json

import numpy as np
import pytest

from modeling_embinv.audit.attackers import TIERS, parse_tiers
from modeling_embinv.audit.findings import measure
from modeling_embinv.audit.page import page
from modeling_embinv.audit.terminal import lines
from modeling_embinv.errors_embinv import EmbInvError
from tests.audit.conftest import TEXTS, report_of, run, tier_result, write

pytestmark = pytest.mark.usefixtures("remembering")


def report_in(folder) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_names_are_put_in_order():
    """A name twice is tried twice; a space behind a comma is no other name."""
    assert parse_tiers("encoder, vectors,encoder") == ("vectors", "encoder") and parse_tiers(",".join(TIERS)) == TIERS
    for wrong, words in (("vectors,x", "unknown: x"), (" , ", "got none")):
        with pytest.raises(EmbInvError, match=words):
            parse_tiers(wrong)


def test_only_the_named_attackers_are_tried(capsys, model, store, tmp_path):
    """Minutes of an attack that nobody asked for, or a severity of "none" where nobody attacked."""
    guesses = tmp_path / "guesses.txt"
    guesses.write_text(f"{TEXTS[0]}\n", encoding="utf-8")
    arguments = (store, "--text-column", "body", "--model", model, "--limit", 4, "--out", tmp_path / "r", "--tiers")
    code, printed, err = run(capsys, *arguments, "guesses", "--candidates", guesses)
    report = report_in(tmp_path / "r")
    assert code == 0 and report["tiers"] == report["planted"] == [] and report["guesses"]["ranking"], err
    assert report["severity"] == "critical" and report["checkpoint"] is None  # the guess is a text of the store
    assert not (tmp_path / "r" / "hits.jsonl").read_text(encoding="utf-8")
    code, printed, err = run(capsys, *arguments, "encoder,context", "--encoder-limit", 2)
    report = report_in(tmp_path / "r")
    assert code == 0 and [tier["name"] for tier in report["tiers"]] == ["encoder"], err
    assert report["guesses"] is None and report["severity"] is not None
    assert "note        the checkpoint has no word head" in printed and "attacker: context" in printed
    assert report["named_words"] is None


@pytest.mark.parametrize(
    "more, words",
    [
        (("--tiers", "vectors,sql"), "unknown: sql"), (("--tiers", "guesses"), "needs --candidates"),
        (("--tiers", "encoder", "--no-encoder"), "contradicts"), (("--tiers", "pairs"), "needs --pairs"),
        (("--tiers", "subject"), "needs --train-texts"),
        (("--tiers", "vectors", "--train-texts", "x"), "for the attacker subject"),
        (("--tiers", "vectors", "--template", "<NAME>"), "for the attacker context"),
    ],
)  # fmt: skip
def test_attackers_that_cannot_be_tried_are_one_line(capsys, model, store, tmp_path, more, words):
    """A guess list that is never looked at, without a word."""
    code, printed, err = run(capsys, store, "--model", model, "--out", tmp_path / "r", *more)
    assert code == 2 and words in err and not printed and not (tmp_path / "r").exists()


def test_nothing_to_score_against_is_said(capsys, model, vectors, tmp_path):
    """Without texts and encoder the report called the severity "none", and said that it had scored."""
    source = write(tmp_path / "bare.parquet", vectors, body=[""] * len(vectors))
    arguments = (source, "--text-column", "body", "--model", model, "--limit", 3, "--out", tmp_path / "r")
    code, _, err = run(capsys, *arguments, "--encoder", tmp_path / "none", "--tiers", "vectors")
    assert code == 2 and "none" in err and "--text-column" not in err
    code, _, err = run(capsys, source, "--model", model, "--out", tmp_path / "r", "--encoder", tmp_path / "none")
    assert code == 2 and "columns: embedding, body; name theirs with --text-column" in err
    plain = report_of(tier_result(["one text"], ["one"]))
    bare = plain.sample._replace(texts=None)
    empty = type(plain)(plain.source, plain.checkpoint, None, plain.origin, bare, 0, plain.date)
    text = "\n".join(lines(empty))
    assert "nothing to score against" in text and "not measured" in text and empty.as_dict()["severity"] is None
    assert '<span class="badge none">not measured</span>' in page(empty)


def test_rows_without_a_text_do_not_count():
    """Half of the rows without a document halve the share of whole texts."""
    figures = measure(["red house", "", " "], ["red house", "x", ""], {"floor": ["y", "", "z"]})
    assert figures["exact"].value == figures["f1"].value == figures["words"].value == 1
    assert figures["exact"].count == figures["f1"].count == 1


def test_a_smaller_sample_is_compared_on_its_own_rows():
    """The encoder's attacker seemed weaker than the one without it: it had other rows."""
    first = tier_result(["red house", "blue car", "old tree"], ["red house", "x", "x"])
    second = tier_result(["blue car", "old tree"], ["blue", "old"])
    second = type(second)(**{**vars(second), "sample": first.sample._replace(total=3).take(np.array([1, 2]))})
    report = report_of(first)
    report.tiers = [first, second]
    assert report.same_rows(first) is None and report.same_rows(second).value == 0
    assert report.same_rows(second).count == 4 and "the attacker vectors recovers 0 % [" in " ".join(
        page(report).split()
    )
    assert "on these rows vectors 0 %" in "\n".join(lines(report))
