"""Gaps inside words: the letters beside them stand once, and other tokens of the same text are no other words."""

from dataclasses import replace

import pytest
import torch

from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.filled_embinv import Finish
from modeling_embinv.gap_affixes_embinv import InsideWords, letters_beside, shortened_words
from modeling_embinv.gap_marks_embinv import GapReader
from modeling_embinv.gap_states_embinv import Hypothesis, TextSearch
from modeling_embinv.loading import load_inverter
from tests.shipped.word_tokenizer import PIECE_TOKENIZER, ids_of
from tests.tiny_models import MASK

READER = GapReader(PIECE_TOKENIZER, MASK)


def search_of(text: str, *tried: tuple[list[str], float], stop: float | None = 0.999) -> TextSearch:
    """A search for a text with one gap, in which fillings were tried; their cosines with e, and one vector each."""
    redacted = READER.read(text, 0)
    search = TextSearch(redacted, torch.eye(9)[0], [torch.ones(len(PIECE_TOKENIZER), dtype=torch.bool)])
    search.stop_cosine = stop
    for number, (pieces, cosine) in enumerate(tried):
        filling = tuple(ids_of(PIECE_TOKENIZER, *pieces))
        search.tried[(filling,)] = Hypothesis((filling,), (-1.0,), torch.eye(9)[number], cosine, cosine)
    search.rank(6)
    return search


@pytest.mark.parametrize(
    "words, before, after, expected",
    [
        ("19th", "in the ", "th century", ["19"]),
        ("shed unrest", "the un", " ended", ["rest"]),
        ("1960s and 1960s", "in the 19", " in", ["60s and 1960s", "60s"]),
        ("unbelievable", "was Un", "ABLE.", ["unbeliev", "believable", "believ"]),
        ("Untied", "was un", ".", ["tied"]),
        ("th", "a ", "th", []),
        ("un", "was un", ".", []),
        ("runs", "was un", ".", []),
        ("able", "was ", " .", []),
        ("a+b", "we ", "+b", []),
    ],
)
def test_letters_that_are_known_are_taken_off(words, before, after, expected):
    """▇▇▇th was filled with "19th", and "19thth" called likely; letters inside a word are no beginning of it."""
    assert shortened_words(words, before, after) == expected


def test_letters_beside_a_gap_end_at_spaces_and_marks():
    """A comma is no letter of the word."""
    assert letters_beside("He was, Un", "able, he") == ("un", "able")
    assert letters_beside("It is €", " .") == ("", "")


def test_a_tried_word_is_tried_without_the_letters_beside_it():
    """The denoiser writes whole words, so the right part of one was never tried."""
    search = search_of("the ▇▇▇th of may", (["4th"], 0.97), (["may"], 0.5))
    inside = InsideWords(READER, lambda *_: None)
    assert inside.may_climb(search)
    (new,) = inside.of_tried(search)
    assert new.fillings == (tuple(ids_of(PIECE_TOKENIZER, "4")),) and new.parent is search.best
    search.tried[new.fillings] = replace(search.best, fillings=new.fillings, cosine=0.9995, score=0.9995)
    search.rank(6)
    assert not inside.may_climb(search), "the text is found"
    assert not inside.of_tried(search) and len(search.tried) == 2, "what has the letters twice is no runner-up"
    assert not InsideWords(READER, lambda *_: None).may_climb(search_of("owe us ▇▇▇ .", (["4"], 0.5)))


def test_the_whole_word_is_searched_for():
    """un▇▇▇ and ▇▇▇able: no part of a word was ever proposed. A whole word with other letters is no answer.

    The whole word in the gap, "ununable", was a runner-up of nearly the same cosine, and halved the probability.
    """
    search, asked = search_of("you un▇▇▇ , us", (["unable"], 0.7), (["li"], 0.6)), []

    def search_for(text, outer):
        asked.append((text.texts, outer))
        whole = search_of("you ▇▇▇ , us", (["unable"], 0.999), (["able"], 0.9))
        assert whole.text == text
        return whole

    inside = InsideWords(READER, search_for)
    found = [PIECE_TOKENIZER.convert_ids_to_tokens(list(one.fillings[0])) for one in inside.of_whole_words(search)]
    assert found == [["able"]] and asked == [(("you ", " , us"), search)]
    assert [one.fillings[0] for one in search.tried.values()] == [ids_of(PIECE_TOKENIZER, "li")]
    inside.of_whole_words(search)
    assert len(asked) == 1, "once"


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["surrogate", "encoder"])
def test_parts_of_words_are_found(judge):
    """The parts work alone, and `fill` does not ask for them, or calls the found text undecided or unread."""
    model, tokenizer = load_inverter(str(CHECKPOINT))
    encoder = load_encoder(EncoderConfig.of_inverter(model.eval().to_int8().config))
    texts = ["the story was unbelievable.", "her office is on the 12th floor.", "it cost €500 in zürich."]
    redacted = ["the story was un▇▇▇able.", "her office is on the ▇▇▇th floor.", "it cost €▇▇▇ in zürich."]
    feedback = encoder.encode if judge == "encoder" else "surrogate"
    found = model.fill(encoder.encode(texts), redacted, tokenizer, feedback).texts
    assert [one.text for one in found] == texts
    assert {one.verdict for one in found} == {"verified" if judge == "encoder" else "likely"}


def test_what_was_tried_is_kept_where_nothing_takes_its_place():
    """Whole words that the tokenizer would not write are not judged; with the guesses gone no text was left."""
    search = search_of("you un▇▇▇ , us", (["unable"], 0.7))
    whole = search_of("you ▇▇▇ , us", (["unable"], 0.999))

    class Strict(GapReader):
        def are_canonical(self, texts):
            return [False] * len(texts)

    inside = InsideWords(Strict(PIECE_TOKENIZER, MASK), lambda *_: whole)
    assert inside.of_whole_words(search) == [] and len(search.tried) == 1


def test_letters_between_two_gaps_stay():
    """Without the "th" between them two gaps of ▇▇▇th▇▇▇ were one."""
    text = READER.read("the ▇▇▇th▇▇▇ of may", 0)
    assert READER.without_letters(text) is None
    search, parts = search_of("the ▇▇▇th of may", (["li"], 0.6)), READER.read("the ▇▇▇able of un███ .", 0)
    assert READER.without_letters(search.text).texts == ("the ", " of may")
    assert READER.without_letters(parts).texts == ("the ", " of ", " .")
    nothing = InsideWords(READER, lambda *_: pytest.fail("there is no such text"))
    search.text = text
    search.tried = {(filling, filling): replace(one, log_p=(-1.0, -1.0)) for (filling,), one in search.tried.items()}
    search.tried = {key: replace(one, fillings=key) for key, one in search.tried.items()}
    search.log_prior *= 2
    search.rank(6)
    assert nothing.of_whole_words(search) == []


def test_tokens_of_one_text_are_one_answer():
    """500 and ##500 behind a € were two words of one cosine: "the encoder does not read that far", and 50 %."""
    search = search_of("owe us €▇▇▇ .", (["35"], 1.0), (["##35"], 1.0), stop=None)
    sure = Finish(PIECE_TOKENIZER, "encoder", lambda p, *_: p, 11)
    filled = sure(search)
    assert filled.verdict == "verified" and filled.gaps[0].probability > 0.999 and not filled.gaps[0].alternatives
    search = search_of("owe us €▇▇▇ .", (["35"], 1.0), (["##35"], 1.0), (["4"], 1.0), stop=None)
    filled = sure(search)
    assert filled.verdict == "unread" and filled.gaps[0].probability == pytest.approx(0.5)
    assert [one.text for one in filled.gaps[0].alternatives] == ["4"], "the vector does not tell it from 35"


def test_the_runner_up_that_is_checked_is_another_text():
    """The encoder was given two spellings of one text, and nothing showed that it reads the gap."""
    search = search_of("owe us €▇▇▇ .", (["35"], 0.99), (["##35"], 0.99), (["4"], 0.7))
    first, second, third = search.ranked
    search.tried[second.fillings] = replace(second, vector=first.vector)
    assert [one.fillings for one in search.runners_up()] == [third.fillings]
    del search.tried[third.fillings]
    assert [one.fillings for one in search.runners_up()] == [second.fillings], "there is no other"
