"""Redacted texts of a store, with the released checkpoint; of one gap, as a gap takes a second and more."""

import numpy as np
import pytest

from modeling_embinv.audit.attack import Attacker
from modeling_embinv.audit.context import fill_sample, has_marks, probabilities, scored_texts, without_marks
from modeling_embinv.audit.fingerprint import Origin
from modeling_embinv.audit.notes import step_notes
from modeling_embinv.audit.run import Outcome, Plan, run
from modeling_embinv.audit.sample import Sample
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.data.files import json_rows
from modeling_embinv.data.parts import locked
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.loading import load_inverter

WHOLE = ["The dog slept.", "We will meet on Friday."]
REDACTED = ["The ▇▇▇ slept.", "We will meet on Friday."]


@pytest.fixture(scope="module")
def inverter():
    model, tokenizer = load_inverter(CHECKPOINT)
    return model.eval(), tokenizer


def sample_of(encoder, texts) -> Sample:
    vectors = encoder.encode(WHOLE).numpy()
    return Sample(vectors, np.arange(len(WHOLE)), None, texts, len(WHOLE), "d")


def test_marks_are_found_and_are_no_words():
    """The mark [REDACTED] was a content word of the original, and an ellipsis hid something."""
    assert has_marks("call <NAME> now") and has_marks("▇▇▇") and not has_marks("a < b ... [1] it's")
    assert without_marks("call [REDACTED] now").split() == ["call", "now"]


def test_marks_that_hide_nothing_are_words(encoder, inverter, tmp_path):
    """The [ERROR] of a log line was cut from the original: a perfect recovery was not whole, and "error" was wrong."""
    line = "[ERROR] disk is full, [NAME] said"
    assert without_marks(line).split() == ["[ERROR]", "disk", "is", "full,", "said"]
    assert without_marks("<PERSON_1> ate ▇▇ *** ___ [MASK] [FIRST NAME] <BR>").split() == ["ate", "<BR>"]
    written, plain = [line, "[NAME] slept."], ["no mark", "I saw [INFO]"]
    sample = Sample(encoder.encode([written[0], "The dog slept."]).numpy(), np.arange(2), None, written, 2, "d")
    by_encoder = Attacker(*inverter, tmp_path, encoder.encode, show_progress=False)
    assert scored_texts(by_encoder, sample) == [line, without_marks(written[1])]
    assert scored_texts(by_encoder, sample._replace(vectors=3 * sample.vectors)) == [line, without_marks(written[1])]
    alone = Attacker(*inverter, tmp_path, show_progress=False)
    assert scored_texts(alone, sample) == [without_marks(text) for text in written]
    assert scored_texts(by_encoder, sample._replace(texts=plain)) == plain
    assert scored_texts(by_encoder, sample._replace(texts=None)) is None


def test_a_resumed_audit_reads_what_the_first_one_wrote(encoder, inverter, tmp_path):
    """A line separator in an id or a text ended the audit for good; resumed, it said that no text was left out."""
    attacker = Attacker(*inverter, tmp_path, show_progress=False)
    names = ["T\u20280", "T\x851"]
    sample = sample_of(encoder, ["The ▇▇▇ slept.\u2028", "▇▇▇"])._replace(ids=names)
    first, again = fill_sample(attacker, sample), fill_sample(attacker, sample)
    assert (first.rows, first.left_out) == (1, 1) and again == first


def test_an_error_is_no_text_without_gaps(encoder, inverter, tmp_path):
    """Where another run wrote there, or a part was damaged, the report said that no text holds a gap."""
    attacker = Attacker(*inverter, tmp_path, show_progress=False)
    parts = tmp_path / "context.jsonl.parts"
    with locked(parts), pytest.raises(EmbInvError, match="another run is writing there"):
        fill_sample(attacker, sample_of(encoder, REDACTED))
    (parts / "run.json").write_text("{")
    with pytest.raises(EmbInvError, match="run.json is damaged"):
        fill_sample(attacker, sample_of(encoder, REDACTED))


def test_texts_that_none_of_which_can_be_filled_are_no_error(encoder, inverter, tmp_path):
    """An audit must not end where all marked texts are nothing but marks, or hide nothing that the encoder reads."""
    attacker = Attacker(*inverter, tmp_path, show_progress=False)
    long = "word " * attacker.model.config.longest_judged + "[REDACTED]"
    assert fill_sample(attacker, sample_of(encoder, ["▇▇▇", long])) is None


def test_marks_of_the_text_itself_are_no_gaps(encoder, inverter, tmp_path):
    """Marks of log lines, which hide nothing, were gaps that are all expected to be right."""
    texts = ["[INFO] server started on port eighty", "The ▇▇▇ slept."]
    sample = Sample(encoder.encode([texts[0], WHOLE[0]]).numpy(), np.arange(2), None, texts, 2, "d")
    attacker = Attacker(*inverter, tmp_path / "both", show_progress=False)
    alone = Attacker(*inverter, tmp_path / "one", show_progress=False)
    for one in (attacker, alone):
        one.work.mkdir()
    both = fill_sample(attacker, sample)
    literal, hidden = (row for _, row in json_rows(attacker.work / "context.jsonl"))
    assert literal["verdict"] == "literal" and hidden["text"] == WHOLE[0]
    assert (both.rows, both.gaps, both.expected.count) == (2, 1, 1)
    assert both.expected.hits == hidden["gaps"][0]["probability"]
    one = fill_sample(alone, sample.take(np.array([0])))
    assert (one.rows, one.gaps, one.expected) == (1, 0, None)
    outcome = Outcome(Origin("m", "e", None), [], [], None, one, None)
    (note,) = step_notes(outcome, Plan(("context",), True))
    assert "no mark counts as a gap" in note


def test_probabilities_that_nobody_calibrated_are_said_to_be(encoder, inverter, tmp_path, monkeypatch):
    """The report gave the share of gaps and of words that should be right, and nothing had been fitted to any."""
    model, tokenizer = inverter
    plan, said = Plan(("vectors", "context")), []
    for name, fitted in (("all", model.generation_config.calibration), ("none", None)):
        monkeypatch.setattr(model.generation_config, "calibration", fitted)
        (tmp_path / name).mkdir()
        attacker = Attacker(model, tokenizer, tmp_path / name, show_progress=False)
        outcome = run(attacker, sample_of(encoder, REDACTED), None, plan, None, [], Origin("m", "e", "random numbers"))
        said.append([note for note in step_notes(outcome, plan) if "calibrated" in note])
    note = "the checkpoint's probabilities of named words and filled gaps are not calibrated: they may be far off"
    assert said == [[], [note]]


def test_a_gap_that_is_not_read_does_not_count():
    """A document with one gap behind what the encoder reads did not count at all, or the gap counted as hidden."""
    gaps = [{"text": text, "mark": "▇▇▇", "probability": p} for text, p in (("dog", 0.9), ("▇▇▇", 0.0))]
    rows = [{"verdict": "unread", "gaps": gaps}, {"verdict": "likely", "gaps": gaps[:1]}]
    unread = [{"verdict": verdict, "gaps": gaps[1:]} for verdict in ("unread", "literal")]
    assert probabilities(rows + unread) == [[0.9], [0.9]]


@pytest.mark.parametrize("template", ["no gap here", "▇▇▇", "word " * 2000 + "▇▇▇"])
def test_a_template_that_cannot_be_filled_is_refused_before_the_attack(encoder, inverter, tmp_path, template):
    """A template without a gap ended the audit when all attackers had run for hours."""
    attacker = Attacker(*inverter, tmp_path, show_progress=False)
    plan = Plan(("vectors", "context"), template=template)
    with pytest.raises(EmbInvError, match="the template cannot be filled: "):
        run(attacker, sample_of(encoder, None), None, plan, None, [], Origin("m", "e", None))
    assert not list(tmp_path.iterdir())


def test_gaps_are_filled_where_there_are_any(encoder, inverter, tmp_path):
    """Rows without a gap must not be filled, and a store without any is no error."""
    attacker = Attacker(*inverter, tmp_path, show_progress=False)
    filled = fill_sample(attacker, sample_of(encoder, REDACTED))
    assert (filled.rows, filled.gaps, filled.left_out, filled.template) == (1, 1, 0, False)
    assert filled.texts == ["The dog slept."] and filled.expected.value > 0.5 and sum(filled.verdicts.values()) == 1
    assert "texts" not in filled.as_dict()
    assert fill_sample(Attacker(*inverter, tmp_path / "other"), sample_of(encoder, WHOLE)) is None
    (tmp_path / "third").mkdir()
    with pytest.raises(EmbInvError, match="template"):
        fill_sample(
            Attacker(*inverter, tmp_path / "third", show_progress=False), sample_of(encoder, None), "no gap here"
        )
