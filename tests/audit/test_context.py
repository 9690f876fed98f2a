"""Redacted texts of a store, with the released checkpoint; of one gap, as a gap takes a second and more."""

import numpy as np
import pytest

from modeling_embinv.audit.attack import Attacker
from modeling_embinv.audit.context import fill_sample, has_marks, without_marks
from modeling_embinv.audit.sample import Sample
from modeling_embinv.cli.options import CHECKPOINT
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
    """An audit must not end where all marked texts are nothing but marks, or go beyond what the surrogate judges."""
    attacker = Attacker(*inverter, tmp_path, show_progress=False)
    long = "[REDACTED] " + "word " * attacker.model.config.longest_judged
    assert fill_sample(attacker, sample_of(encoder, ["▇▇▇", long])) is None


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
