"""Redacted texts that are longer than the encoder reads: what is behind that stays as it is."""

import pytest
import torch

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.gap_marks_embinv import GapReader
from modeling_embinv.gap_reach_embinv import read_text
from modeling_embinv.gap_states_embinv import RedactedText
from tests.shipped.word_encoder import encode_ids, vector_of
from tests.shipped.word_tokenizer import PIECE_TOKENIZER, SPECIAL, TOKENIZER, WORDS
from tests.tiny_models import END, MASK, awaken, tiny_model, unit_vectors, with_surrogate, with_vocabulary

TEXT = [7, 12, 30, 9, 21, 44, 8]
LONG = [*range(5, 17), MASK, *range(20, 26)]  # of 19 tokens
SETTINGS = {"num_proposals": 200, "num_sweeps": 2}


def read(text: str, tokenizer=TOKENIZER) -> RedactedText:
    return GapReader(tokenizer, tokenizer.mask_token_id).read(text, 0)


def reading_model(length: int) -> torch.nn.Module:
    """A model whose surrogate reads `length` tokens, as its encoder does."""
    model = with_surrogate()
    model.config.surrogate_length = length
    return model


@pytest.mark.parametrize("most", range(2, 10))
def test_the_first_gap_that_is_not_read_ends_the_text(most):
    """A gap that begins with the last token that is read was left out, or one behind it was searched for in vain."""
    text = read("dear *** you owe us *** dollars ***")  # the gaps begin at tokens 1, 5 and 7 at least
    short = read_text(text, 0, most)
    assert len(short.gaps) == sum(start < most for start in (1, 5, 7))
    if short.unread is None:
        assert short is text
    else:
        assert (*short.gaps, *short.unread.gaps) == text.gaps
        marks = ["***"] * len(short.gaps), ["***"] * len(short.unread.gaps)
        assert short.joined(marks[0]) + short.unread.joined(marks[1]) == "dear *** you owe us *** dollars ***"
        ids = [*short.ids([(4,)] * len(short.gaps)), *short.unread.ids([(4,)] * len(short.unread.gaps))]
        assert ids == text.ids([(4,)] * 3)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, PIECE_TOKENIZER])
def test_the_cut_changes_no_token(tokenizer):
    """A space at the end of the text is a token to some tokenizers: no filling had the tokens of its text any more."""
    text = read("dear *** you owe us *** dollars", tokenizer)
    short = read_text(text, 0, 4)
    (filling,) = tokenizer(["dear anna"], add_special_tokens=False)["input_ids"]
    filling = tuple(filling[len(text.pieces[0]) :])
    assert GapReader(tokenizer, tokenizer.mask_token_id).are_canonical([(short, (filling,))]) == [True]


def test_a_gap_behind_what_the_encoder_reads_keeps_its_mark():
    """The whole document was refused, though only one of its gaps is lost; or its tail was missing in the result."""
    size = len(SPECIAL + WORDS)
    model = awaken(tiny_model(surrogate_rank=4, surrogate_length=8, **with_vocabulary(size)))
    whole, redacted = (
        "dear anna , you owe us 350 dollars , li london",
        "dear *** , you owe us 350 dollars , <PERSON> london",
    )
    ids = TOKENIZER(whole, add_special_tokens=False)["input_ids"]
    own = model.embed(torch.tensor([[*ids[:8], TOKENIZER.sep_token_id]]))
    (filled,) = model.fill(own, [redacted], TOKENIZER, max_gap_tokens=1, **SETTINGS).texts
    assert filled.text == "dear anna , you owe us 350 dollars , <PERSON> london" and filled.cosine > 0.9999
    assert filled.verdict == "unread"
    first, last = filled.gaps
    assert (last.text, last.mark, last.probability, last.alternatives) == ("<PERSON>", "<PERSON>", 0.0, ())
    assert [filled.text[gap.start : gap.end] for gap in filled.gaps] == ["anna", "<PERSON>"]
    assert first.probability > last.probability and filled.ids == (*ids[:9], *last.ids, ids[-1])


def test_a_long_text_is_judged_by_what_the_encoder_reads():
    """The vector of a longer text is that of its first tokens: judged as a whole no filling came near it."""
    model, text = reading_model(15), [*range(5, 17), 40, *range(20, 26)]
    own = model.embed(torch.tensor([[*text[:15], END]]))
    (filled,) = model.fill(own, [LONG], **SETTINGS).texts
    assert filled.ids == tuple(text) and filled.cosine > 0.9999 and filled.verdict != "unread"


def test_token_ids_behind_stay_masked():
    """The ids of a result were those of the text that was searched, without what follows."""
    model = reading_model(15)
    row = [*LONG, MASK, MASK, 7]
    (filled,) = model.fill(unit_vectors(1), [row], **SETTINGS).texts
    assert filled.ids[13:] == tuple(row[13:]) and len(filled.ids) == len(row)
    assert filled.gaps[1].ids == (MASK, MASK) and filled.gaps[1].probability == 0


@pytest.mark.parametrize("feedback", ["surrogate", encode_ids])
def test_a_text_with_all_gaps_behind_is_refused(feedback):
    """A search of minutes ends with words of which the vector says nothing."""
    with pytest.raises(EmbInvError, match="text 0 has gaps only behind its first 12 tokens: the encoder reads no"):
        reading_model(12).fill(unit_vectors(1), [LONG], feedback=feedback, longest=12)


def test_the_encoder_is_told_how_far_it_reads():
    """Gaps that it does not read were searched for minutes, and a guess stood there."""
    row, judge = [*TEXT[:3], MASK, *TEXT[4:], MASK], lambda ids: encode_ids(ids[:, : len(TEXT)])
    (filled,) = awaken(tiny_model()).fill(vector_of(TEXT), [row], feedback=judge, longest=len(TEXT), **SETTINGS).texts
    assert filled.ids == (*TEXT, MASK) and filled.cosine > 0.9999 and filled.verdict == "unread"
    assert filled.gaps[0].probability > filled.gaps[1].probability == 0


def test_a_surrogate_that_is_not_the_encoder_refuses_longer_texts():
    """It reads less than the encoder does: cut there, it would judge another text than the vector's."""
    model = with_surrogate()
    with pytest.raises(EmbInvError, match="text 0 has at least 19 tokens; the surrogate judges 11 at most"):
        model.fill(unit_vectors(1), [LONG])


def test_the_scout_helps_where_it_reads_as_far_as_the_encoder():
    """The encoder embedded each proposal for a document, eight times as many as for a text that it reads whole."""
    model = reading_model(15)
    settings = {"num_proposals": 40, "num_checked": 4, "num_sweeps": 1}
    encoder, target = (lambda ids: encode_ids(ids[:, :15])), unit_vectors(1)
    alone = model.fill(target, [LONG], feedback=encoder, **settings)
    scouted = model.fill(target, [LONG], feedback=encoder, longest=15, **settings)
    assert scouted.num_feedback_calls <= 2 + 4 < 20 <= alone.num_feedback_calls
    assert scouted.num_surrogate_calls > 20 and alone.num_surrogate_calls == 0
    further = model.fill(target, [LONG], feedback=encoder, longest=16, **settings)  # than the surrogate
    assert further.num_surrogate_calls == 0
