"""`fill`: the search over gaps finds what an exhaustive one finds, and says how sure it is."""

import functools
import itertools
import math
from dataclasses import replace

import pytest
import torch

from modeling_embinv import filling_embinv
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.filled_embinv import NUM_ALTERNATIVES, VERDICTS, Finish, verdict_of_gaps
from modeling_embinv.fingerprint_embinv import Fingerprint
from modeling_embinv.gap_marks_embinv import GapReader
from modeling_embinv.gap_proposals_embinv import Proposer, WindowDenoiser
from modeling_embinv.gap_states_embinv import Gap, Hypothesis, Job, RedactedText, TextSearch
from tests.shipped.word_encoder import encode_ids, encode_texts, vector_of
from tests.shipped.word_tokenizer import BYTE_TOKENIZER, PIECE_TOKENIZER, PIECES, SPECIAL, TOKENIZER, WORDS
from tests.tiny_models import END, MASK, VOCAB, awaken, tiny_model, unit_vectors, with_surrogate, with_vocabulary

MODEL = awaken(tiny_model())
TEXT = [7, 12, 30, 9, 21, 44, 8]


def test_it_finds_what_trying_everything_finds():
    """A beam that loses the best text, a gap filled from another's state, a score of the wrong row: another text."""
    row = list(TEXT)
    row[2] = row[5] = MASK
    target = torch.nn.functional.normalize(vector_of(TEXT) + 0.2 * unit_vectors(1, seed=9), dim=-1)
    special = {END, MASK, MODEL.config.pad_token_id}
    words = [token for token in range(VOCAB) if token not in special]
    every = torch.tensor([[*row[:2], a, *row[3:5], b, row[6]] for a, b in itertools.product(words, words)])
    best = every[(encode_ids(every) @ target[0]).argmax()]
    (filled,) = MODEL.fill(target, [row], feedback=encode_ids, num_proposals=VOCAB, num_beams=8).texts
    assert filled.ids == tuple(best.tolist())
    assert filled.cosine == pytest.approx(float(vector_of(best.tolist()) @ target[0]), abs=1e-5)


def test_what_is_known_stays():
    """A position that is off by one overwrites a word that was given."""
    row = [MASK, *TEXT[1:3], MASK, MASK, *TEXT[5:]]
    (filled,) = MODEL.fill(vector_of(TEXT), [row], feedback=encode_ids).texts
    assert len(filled.ids) == len(row)
    assert all(token == given for token, given in zip(filled.ids, row, strict=True) if given != MASK)
    assert [len(gap.ids) for gap in filled.gaps] == [1, 2] and not {MASK, END} & set(filled.ids)


def test_an_exact_text_is_verified_and_ends_the_search():
    """A search that goes on after the vector is reached spends calls of the encoder on nothing."""
    row = [*TEXT[:3], MASK, *TEXT[4:]]
    output = MODEL.fill(vector_of(TEXT), [row], feedback=encode_ids, num_proposals=VOCAB, num_sweeps=50)
    (filled,) = output.texts
    assert filled.ids == tuple(TEXT) and filled.verdict == "verified" and filled.cosine > 0.9999
    assert output.num_feedback_calls <= VOCAB and output.num_surrogate_calls == 0


def test_another_texts_vector_is_told():
    """A filling that is reported as likely for a vector of something else is worse than none."""
    row = [*TEXT[:3], MASK, *TEXT[4:]]
    (filled,) = MODEL.fill(-vector_of(TEXT), [row], feedback=encode_ids).texts
    assert filled.verdict == "unrelated" and filled.gaps[0].probability == 0
    assert all(one.probability == 0 for one in filled.gaps[0].alternatives)


def test_a_gap_beyond_what_the_encoder_reads_is_told():
    """All fillings have one vector then, and the first of them would look as sure as any.

    The calibration, which takes a cosine of 1 for a proof, gave it 99 %.
    """
    sure = {"fill_encoder": {"probability": 1.0, "length": 0.0, "nearness": 10.0, "bias": 0.0}}
    model = awaken(tiny_model())
    model.generation_config = type(model.generation_config)(calibration=sure)
    row, judge = [*TEXT[:6], MASK], lambda ids: encode_ids(ids[:, :3])
    (filled,) = model.fill(vector_of(TEXT[:3]), [row], feedback=judge).texts
    assert filled.verdict == "unread" and filled.cosine > 0.9999
    assert filled.gaps[0].probability < 0.6  # of two words that were tried


def test_texts_do_not_depend_on_each_other():
    """A state that two texts of a batch share gives one of them the other's words."""
    rows = [[*TEXT[:3], MASK, *TEXT[4:]], [MASK, 6, MASK, 11], [5, MASK, MASK, 30, 31, 32, MASK]]
    vectors = torch.cat([vector_of(TEXT), vector_of([40, 6, 41, 11]), vector_of([5, 50, 51, 30, 31, 32, 52])])
    together = MODEL.fill(vectors, rows, feedback=encode_ids).texts
    alone = [MODEL.fill(v[None], [r], feedback=encode_ids).texts[0] for v, r in zip(vectors, rows, strict=True)]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert [one.cosine for one in together] == pytest.approx([one.cosine for one in alone], abs=1e-5)


def test_a_text_with_marks_comes_back_whole():
    """Lengths that nobody knows, at both ends, with spans that point at the words in the filled text."""
    model = awaken(tiny_model(**with_vocabulary(len(SPECIAL + WORDS))))
    text = "dear anna , you owe us 350 dollars"
    (filled,) = model.fill(
        encode_texts([text]), ["*** , you owe us ▇▇▇"], tokenizer=TOKENIZER, feedback=encode_texts, num_sweeps=10,
        num_proposals=200, num_beams=60, max_gap_tokens=3,
    ).texts  # fmt: skip
    assert filled.text == text and filled.verdict == "verified"
    assert [filled.text[gap.start : gap.end] for gap in filled.gaps] == ["dear anna", "350 dollars"]
    assert [gap.mark for gap in filled.gaps] == ["***", "▇▇▇"]
    whole = filled.as_dict()
    assert whole["text"] == text and [gap["text"] for gap in whole["gaps"]] == ["dear anna", "350 dollars"]


def test_a_word_that_the_tokenizer_does_not_know_may_be_hidden_where_a_mark_seems_literal():
    """A hidden emoji has the vector of ▇▇▇, as neither is in the vocabulary; "nothing is hidden" was said of both."""
    model = awaken(tiny_model(**with_vocabulary(len(SPECIAL + WORDS))))
    (filled,) = model.fill(
        encode_texts(["dear 😀 , you owe us"]), ["dear ▇▇▇ , you owe us"], tokenizer=TOKENIZER, feedback=encode_texts
    ).texts
    assert filled.verdict == "literal"
    assert "or only what the tokenizer does not know" in filled.as_dict()["verdict_in_words"]


def test_a_mark_of_another_length_than_the_gaps_does_not_stand_for_itself():
    """Where gaps of 20 tokens were asked for, the mark itself came back: nothing else that was tried came as near."""
    model = awaken(tiny_model(**with_vocabulary(len(SPECIAL + WORDS))))
    for num_tokens, is_literal in ((None, True), (1, True), (2, False)):
        (filled,) = model.fill(
            encode_texts(["dear ▇▇▇ , you owe us"]), ["dear ▇▇▇ , you owe us"], tokenizer=TOKENIZER,
            feedback=encode_texts, num_tokens=num_tokens,
        ).texts  # fmt: skip
        assert (filled.verdict == "literal") == is_literal == (filled.gaps[0].text == "▇▇▇")


def test_a_mark_that_is_far_from_the_vector_is_not_said_to_be_part_of_the_text():
    """Nothing is hidden there, it was said at a cosine of 0.76, where the mark was the best of bad fillings."""
    model, text = awaken(tiny_model(**with_vocabulary(len(SPECIAL + WORDS)))), "dear ▇▇▇ , you owe us 350 dollars"
    own, verdicts = encode_texts([text]), []
    for noise in (0.1, 0.6):
        target = torch.nn.functional.normalize(own + noise * unit_vectors(1, seed=12), dim=-1)
        (filled,) = model.fill(target, [text], tokenizer=TOKENIZER, feedback=encode_texts, num_proposals=1).texts
        assert filled.gaps[0].text == "▇▇▇"
        verdicts.append(filled.verdict)
    assert verdicts == ["literal", "distant"]


def test_a_list_is_an_attack_of_its_own():
    """Words beside the list must not win, and every length of the list must be tried."""
    model = awaken(tiny_model(**with_vocabulary(len(SPECIAL + WORDS))))
    (filled,) = model.fill(
        encode_texts(["dear anna li , you owe us 350"]), ["dear <NAME> , you owe us 350"], tokenizer=TOKENIZER,
        feedback=encode_texts, choices={"NAME": ["li", "London", "anna li"]},
    ).texts  # fmt: skip
    (gap,) = filled.gaps
    assert gap.text == "anna li" and gap.kind == "name" and filled.verdict == "verified"
    assert {one.text for one in gap.alternatives} <= {"li", "London", "<NAME>"}


def test_a_tag_is_a_hint():
    """Words that do not look like their kind, as "yesterday" for <DATE>, were impossible: wrong ones were likely."""
    model = awaken(tiny_model(**with_vocabulary(len(SPECIAL + WORDS))))
    whole = "dear anna , you owe us dollars"
    (filled,) = model.fill(
        encode_texts([whole]), ["dear anna , you owe us <NUMBER>"], TOKENIZER, encode_texts, num_proposals=40
    ).texts
    assert filled.text == whole and filled.verdict == "verified" and filled.gaps[0].kind == "number"


def test_probabilities_are_a_distribution():
    """Runners-up that are likelier than the filling, or a sum above 1, cannot be read as probabilities."""
    row = [*TEXT[:3], MASK, *TEXT[4:6], MASK]
    target = vector_of(TEXT) + 0.3 * unit_vectors(1, seed=3)
    (filled,) = MODEL.fill(torch.nn.functional.normalize(target, dim=-1), [row], feedback=encode_ids).texts
    for gap in filled.gaps:
        others = [one.probability for one in gap.alternatives]
        assert len(others) <= NUM_ALTERNATIVES and gap.ids not in [one.ids for one in gap.alternatives]
        assert 0 <= gap.probability <= 1 and gap.probability + sum(others) <= 1 + 1e-6


def test_the_scout_saves_calls_of_the_encoder():
    """Without a scout the encoder embeds every proposal; with one `num_checked` in each step, and what it found."""
    model = with_surrogate()
    row = [*TEXT[:3], MASK, *TEXT[4:]]
    target = torch.nn.functional.normalize(vector_of(TEXT) + 0.3 * unit_vectors(1, seed=4), dim=-1)
    output = model.fill(target, [row], feedback=encode_ids, num_checked=5, num_sweeps=1, num_proposals=30)
    assert 0 < output.num_feedback_calls <= 2 + 2 * 5 < 30 and output.num_surrogate_calls > output.num_feedback_calls


def test_the_encoder_checks_what_the_surrogate_found():
    """A surrogate that finds the text by itself: the encoder embedded a dozen fillings of each gap, not two."""
    model = with_surrogate()
    row, seen = [*TEXT[:3], MASK, *TEXT[4:6], MASK], []

    def encoder(ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids)
        return model.embed(ids)

    own = model.embed(torch.tensor([[*TEXT, END]]))
    shown: list = []
    output = model.fill(own, [row], feedback=encoder, on_step=lambda texts: shown.append(texts[0].verdict))
    assert output.texts[0].ids == tuple(TEXT) and output.texts[0].verdict == "verified"
    assert output.num_feedback_calls == len(torch.cat(seen)) <= 1 + 2
    assert shown and "verified" not in shown  # the surrogate's steps are shown as its own
    assert all(gap.alternatives for gap in output.texts[0].gaps)


def test_a_long_text_takes_no_scout_from_the_others():
    """Beside one that is too long for the surrogate, a text would cost many more calls of the encoder."""
    model, short = with_surrogate(), [*TEXT[:3], MASK, *TEXT[4:]]
    target = torch.nn.functional.normalize(vector_of(TEXT) + 0.3 * unit_vectors(1, seed=4), dim=-1)
    long = [*range(5, 17), MASK]
    settings = {"num_checked": 4, "num_sweeps": 1, "num_proposals": 40}
    alone = [model.fill(target, [row], feedback=encode_ids, **settings) for row in (short, long)]
    both = model.fill(target.repeat(2, 1), [short, long], feedback=encode_ids, **settings)
    assert [one.ids for one in both.texts] == [one.texts[0].ids for one in alone]
    assert both.num_feedback_calls == sum(one.num_feedback_calls for one in alone)
    assert alone[0].num_feedback_calls <= 2 + 2 * 4 < 20 <= alone[1].num_feedback_calls
    assert alone[1].num_surrogate_calls == 0


def test_vectors_of_another_encoder_are_named():
    """Words that are found for vectors of another encoder mean nothing, however sure they look."""
    own = torch.nn.functional.normalize(unit_vectors(400, seed=1) * torch.linspace(0.1, 2, 16), dim=-1)
    model = awaken(tiny_model(encoder_fingerprint=Fingerprint.of(own).to_text(), encoder_id="an/encoder"))
    other = torch.nn.functional.normalize(unit_vectors(1, seed=3) * torch.linspace(2, 0.1, 16), dim=-1)
    with pytest.warns(UserWarning, match="this model inverts vectors of an/encoder"):
        model.fill(other, [[5, MASK]], feedback=encode_ids, num_sweeps=1)


def test_every_step_is_shown():
    """A page that waits for the end shows nothing for seconds; the cosine never falls."""
    shown = []
    row = [MASK, *TEXT[1:3], MASK, *TEXT[4:]]
    target = torch.nn.functional.normalize(vector_of(TEXT) + 0.3 * unit_vectors(1, seed=4), dim=-1)
    output = MODEL.fill(
        target, [row], feedback=encode_ids, on_step=lambda filled: shown.append(filled[0].cosine), num_sweeps=2
    )
    assert len(shown) >= 2 and shown == sorted(shown) and shown[-1] == output.texts[0].cosine


def test_a_window_of_a_long_text_holds_the_position():
    """Of a text that is longer than the canvas, a window that misses the gap predicts another token."""
    denoiser, vector = WindowDenoiser(MODEL), unit_vectors(1)
    short = [7, 12, MASK, 9]
    canvas = torch.tensor([[*short, *[END] * 8]])
    timestep = MODEL.noise_schedule.timestep((canvas == MASK).float().mean(dim=1))
    with torch.no_grad():
        expected = MODEL(canvas, vector, timestep).logits[0, 2].log_softmax(dim=-1)
        assert torch.allclose(denoiser.log_p([short], [2], vector)[0], expected, atol=1e-5)
        # as much of the text as fits around the position, whatever stands further away
        near = [*range(10, 15), MASK, *range(15, 20)]
        long = denoiser.log_p([[*[50] * 30, *near, *[51] * 30]], [35], vector)
        other = denoiser.log_p([[*[52] * 30, *near, *[53] * 20]], [35], vector)
    assert torch.allclose(long, other, atol=1e-5) and denoiser.num_forward_passes == 3


def search_of(fillings: tuple, lengths: tuple, **arguments) -> TextSearch:
    gaps = tuple(Gap(lengths=lengths) for _ in fillings)
    text = RedactedText(tuple((7,) for _ in range(len(fillings) + 1)), (), gaps)
    prior = [torch.zeros(VOCAB) for _ in fillings]
    hypothesis = Hypothesis(fillings, (0.0,) * len(fillings), unit_vectors(1)[0], 0.5, 0.5)
    search = TextSearch(text, unit_vectors(1)[0], prior, **arguments)
    search.beam = [hypothesis]
    return search


def test_words_move_between_gaps():
    """A word that the first gap took from the second comes back by no change of one gap alone."""
    search = search_of(((10, 11), (12,)), (1, 2, 3))
    moved = {one.fillings for one in Job(search, 1, search.beam[0], False, 5).moves()}
    assert moved == {
        ((12,), (10, 11)), ((11,), (10, 12)), ((11,), (12, 10)), ((10,), (11, 12)), ((10,), (12, 11)),
    }  # fmt: skip
    search.log_prior[1][11] = -torch.inf  # such as an end token
    moved = {one.fillings for one in Job(search, 1, search.beam[0], False, 5).moves()}
    assert moved == {((11,), (10, 12)), ((11,), (12, 10))}
    assert Job(search, 1, search.beam[0], True, 5).moves() == []


def test_a_filled_gap_is_edited():
    """A length that only the first step tries is never corrected: tokens are replaced, removed and inserted.

    "has been" in the place of "have" is no word with another one removed: the gap is written a token shorter, too.
    """
    search = search_of(((10, 11),), (1, 2, 3))
    job = Job(search, 0, search.beam[0], False, 5)
    canvases = {canvas for canvas, _ in job.canvases(MASK)}
    assert canvases == {
        (MASK, MASK), (MASK,), (MASK, 11), (10, MASK), (MASK, 10, 11), (10, MASK, 11), (10, 11, MASK),
    }  # fmt: skip
    assert {filling for filling, _ in job.without_denoiser()} == {(10,), (11,)}
    opened = Job(search, 0, search.beam[0], True, 5)
    assert [canvas for canvas, _ in opened.canvases(MASK)] == [(MASK,), (MASK,) * 2, (MASK,) * 3]


@pytest.mark.parametrize("lengths", [(1, 2, 3), (2, 3), (4,)])
def test_a_longer_gap_is_less_likely(lengths):
    """The denoiser is told the number of tokens: four that follow each other beat the one word that is hidden."""
    search = search_of(((10, 11),), lengths)
    canvases = Job(search, 0, search.beam[0], True, 5).canvases(MASK)
    assert [log_p for _, log_p in canvases] == [0, -1, -2][: len(lengths)]


def test_a_gap_may_hide_more_than_its_first_guesses():
    """Phrases of seven tokens were never found, and what was found of them passed for likely."""
    for lengths, longest in (((1, 2), 4), ((2,), 2), ((3, 4, 5), 10)):
        gap = Gap(lengths=lengths)
        sizes = [size for size in range(20) if gap.fits(size)]
        assert sizes == list(range(min(lengths), longest + 1))
    search = search_of(((10, 11),), (1, 2))
    canvases = [canvas for canvas, _ in Job(search, 0, search.beam[0], False, 5).canvases(MASK)]
    assert (10, 11, MASK) in canvases and search.may_hold(0, (10,) * 4) and not search.may_hold(0, (10,) * 5)


@pytest.mark.parametrize("judge", ["encoder", "surrogate"])
def test_a_phrase_that_does_not_reach_the_vector_is_not_likely(judge):
    """Of gaps that hide more than six tokens 44 of 48 were "likely", with a probability of 0.9: none was right."""
    text = RedactedText(((5,), (6,)), (), (Gap(lengths=(1, 2, 3, 4, 5)),))
    finish = Finish(None, judge, lambda p, *_: 0.99, 11)

    def of(filling, cosine, gap=text.gaps[0], stop=0.997):
        search = TextSearch(replace(text, gaps=(gap,)), torch.zeros(4), [], stop_cosine=stop)
        search.tried[(filling,)] = Hypothesis((filling,), (0.0,), torch.zeros(4), cosine, cosine)
        search.rank(2)
        filled = finish(search)
        return filled.verdict, filled.gaps[0].probability

    phrase = tuple(range(10, 15))
    assert of(phrase, 0.99) == ("undecided", 0.2)
    assert of(phrase, 0.998)[0] in ("likely", "verified") and of(phrase, 0.998)[1] > 0.9
    narrow = (Gap(lengths=(5,)), Gap(lengths=(1, 5), choices={phrase: "a"}), Gap(lengths=(1, 5), literal=phrase))
    assert of(phrase[:4], 0.99)[0] == of(phrase, 0.99, stop=None)[0] == "likely"
    assert [of(phrase, 0.99, gap)[0] for gap in narrow] == ["likely", "likely", "literal"]


def test_a_first_guess_is_not_edited():
    """Rows of the denoiser went to words beside a guess that no judge had chosen, in each hypothesis of the beam."""
    search = search_of(((10, 11),), (1, 2, 3))
    other = replace(search.beam[0], score=0.4)
    assert Job(search, 0, other, True, 5).canvases(MASK) == [((MASK, MASK), -1.0)]


def test_only_what_the_tokenizer_writes_is_tried():
    """Pieces of a word beside the word itself cost calls and are never right."""
    reader = GapReader(TOKENIZER, MASK)
    text = reader.read("dear ***", 0)
    anna, unknown = TOKENIZER.convert_tokens_to_ids("anna"), TOKENIZER.unk_token_id
    assert reader.are_canonical([(text, ((anna,),)), (text, ((anna, unknown),)), (text, (text.gaps[0].literal,))]) == [
        True, False, True,
    ]  # fmt: skip
    ids = reader.read([5, MASK], 0)
    assert reader.are_canonical([(ids, ((unknown,),))]) == [True]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"texts": [[5, MASK]]}, "each vector needs its text: got 2 vectors and 1 texts"),
        ({"texts": None}, "texts must be redacted texts, one for each vector, got None"),
        ({"texts": 5}, "texts must be redacted texts, one for each vector, got 5"),
        ({"texts": [[5, MASK], [5, MASK, 999]]}, "text 1 must be token ids below this model's vocabulary of 60"),
        ({"choices": ["a"]}, "choices must be lists by the word in the mark"),
        ({"on_step": "x"}, "on_step must be a function of the texts so far, got 'x'"),
        ({"texts": [[5, MASK], [5, 6]]}, "text 1 has no gap"),
        ({"feedback": None}, 'fill needs feedback: "surrogate"'),
        ({"feedback": "encoder"}, "feedback must be"),
        ({"feedback": "surrogate"}, "no surrogate"),
        (
            {"longest": "x"},
            "longest must be the number of tokens that the encoder reads, at least 1, or None, got 'x'",
        ),
        ({"longest": 0}, "longest must be .* got 0"),
        ({"longest": 1.5}, "longest must be .* got 1.5"),
        (
            {"tokenizer": TOKENIZER, "texts": ["dear ▇▇▇", "a \ud83d ▇▇▇"]},
            r"text 1 must be text in UTF-8, got '.ud83d'",
        ),
        (
            {"tokenizer": TOKENIZER, "texts": ["dear ▇▇▇"] * 2, "choices": {"": ["li", "\udce9"]}},
            r"the choices of a mark must be text in UTF-8, got '.udce9' at character 0",
        ),
        ({"num_beems": 3}, "unknown fill setting 'num_beems'; known are num_sweeps"),
        ({"num_beams": 0}, "num_beams must be a whole number from 1"),
        ({"embeddings": unit_vectors(2, 8)}, "embeddings must have shape"),
        (
            {"texts": [[5, MASK], [*range(5, 17), MASK]], "feedback": "surrogate", "model": 1},
            "text 1 has at least 13 tokens",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message):
    """What is wrong must be said before the search, not in its middle."""
    given = {"embeddings": unit_vectors(2), "texts": [[5, MASK], [MASK, 6]], "feedback": encode_ids, **arguments}
    model = with_surrogate() if given.pop("model", None) else MODEL
    with pytest.raises(EmbInvError, match=message) as raised:
        model.fill(given.pop("embeddings"), given.pop("texts"), **given)
    assert "\n" not in str(raised.value)


def test_no_texts_are_filled_at_once():
    """An empty file is no error: max() of nothing."""
    output = MODEL.fill(torch.zeros(0, 16), [], feedback=encode_ids)
    assert output.texts == [] and output.num_feedback_calls == 0


def test_every_verdict_has_its_words():
    """A verdict without a sentence is a KeyError on somebody's page."""
    assert set(VERDICTS) == {"verified", "likely", "undecided", "distant", "unrelated", "literal", "unread"}
    assert all(sentence and not sentence.endswith(".") for sentence in VERDICTS.values())


@pytest.mark.parametrize(
    "cosine, probabilities, verdict",
    [(0.95, [0.8, 0.9], "likely"), (0.95, [0.8, 0.7], "undecided"), (0.8, [0.99], "distant"), (0.8, [0.2], "distant")],
)
def test_a_text_far_from_its_vector_is_not_undecided(cosine, probabilities, verdict):
    """Several gaps filled for another text's vector had "other words fit about as well": no words fitted."""
    assert verdict_of_gaps(cosine, probabilities) == verdict


def test_the_probability_is_calibrated_by_judge():
    """A calibration that is fitted for one judge must be looked up for it alone."""
    model = awaken(tiny_model())
    model.generation_config = type(model.generation_config)(
        calibration={"fill_encoder": {"probability": 1.0, "length": 0.0, "nearness": 0.0, "bias": -40.0}}
    )
    target = torch.nn.functional.normalize(vector_of(TEXT) + 0.3 * unit_vectors(1, seed=4), dim=-1)
    (filled,) = model.fill(target, [[*TEXT[:3], MASK, *TEXT[4:]]], feedback=encode_ids).texts
    assert filled.gaps[0].probability < 1e-3 and filled.verdict == "undecided"
    assert replace(filled, verdict="likely").as_dict()["verdict"] == "likely"


def test_a_search_that_has_not_found_the_text_widens():
    """Of the encoder a cosine below 1 says that a word is wrong; a search that gives up then is too narrow."""
    row = [*TEXT[:3], MASK, *TEXT[4:]]
    narrow = MODEL.fill(vector_of(TEXT), [row], feedback=encode_ids, num_proposals=2, num_sweeps=1)
    wide = MODEL.fill(vector_of(TEXT), [row], feedback=encode_ids, num_proposals=14, num_sweeps=5)
    assert narrow.texts[0].verdict != "verified" and wide.texts[0].verdict == "verified"
    assert wide.num_feedback_calls > 14 + 2  # one sweep of that width was not enough


def test_a_surrogate_widens_below_its_stop_cosine_alone():
    """The cosine of a right text by the surrogate is known, too: at 0.99 a word is wrong, and nothing looked on.

    A surrogate without such a cosine cannot tell, and one that has reached it must not work on.
    """
    row, calls = [*TEXT[:3], MASK, *TEXT[4:6], MASK], {}
    for stop in (None, 1.0, -1.0):
        model = with_surrogate()
        model.generation_config = type(model.generation_config)(search={"stop_cosine": stop})
        own = model.embed(torch.tensor([[*TEXT, END]])) + 0.2 * unit_vectors(1, seed=9)
        output = model.fill(torch.nn.functional.normalize(own, dim=-1), [row], num_proposals=12, num_sweeps=9)
        calls[stop] = output.num_surrogate_calls
        assert stop == -1.0 or (output.texts[0].cosine < 1.0)
    assert calls[-1.0] < calls[None] < calls[1.0]


def test_another_texts_vector_is_not_searched_for_longer():
    """More fillings come nearer to any vector: the control would look less unlike, and take four times as long.

    It went on as long as anything improved, and with several gaps something always does. A vector that nothing comes
    near in one sweep gets no second one.
    """
    row, calls = [*TEXT[:3], MASK, *TEXT[4:]], []
    for other in (0.4, 3.0):  # of the text's own vector, and of none of its fillings
        target = torch.nn.functional.normalize(vector_of(TEXT) + other * unit_vectors(1, seed=9), dim=-1)
        output = MODEL.fill(target, [row], feedback=encode_ids, num_proposals=5, num_sweeps=9)
        calls.append(output.num_feedback_calls)
        assert (output.texts[0].verdict == "unrelated") == (other > 1)
    assert calls[1] <= 2 + 2 * 5 < calls[0]
    many, num_unrelated = [MASK, TEXT[1], MASK, TEXT[3], MASK, TEXT[5], MASK], 0
    for seed in range(8):
        steps: list = []
        MODEL.fill(unit_vectors(1, seed=seed), [many], feedback=encode_ids, num_proposals=4, on_step=steps.append)
        if steps[-1][0].verdict == "unrelated":
            assert len(steps) <= 2 * 4
            num_unrelated += 1
    assert num_unrelated
    steps = []
    MODEL.fill(-vector_of(TEXT), [many], feedback=encode_ids, num_proposals=4, on_step=steps.append)
    assert len(steps) == 4


def test_the_aim_of_a_window_is_in_proportion():
    """Of 60 tokens one hidden word changes the vector little; a window of 11 is written for five times that change.

    For vectors that are means of tokens the aim of α = 0 is then the window's own vector with the hidden word.
    """
    means = unit_vectors(VOCAB, seed=8)
    known, hidden, wrong = [10, 11, 12, 13, 14] * 6, 40, 41
    text = RedactedText((tuple(known), tuple(known)), (), (Gap(),))
    mean = lambda rows: torch.stack([means[row].mean(dim=0) for row in rows])  # noqa: E731
    (whole,), (filled,) = mean([[*known, hidden, *known]]), mean([[*known, wrong, *known]])
    search = TextSearch(text, whole, [torch.ones(VOCAB, dtype=torch.bool)])
    search.beam = [Hypothesis(((wrong,),), (0.0,), filled, 0.9, 0.9)]
    job = Job(search, 0, search.beam[0], False, 5)
    (aim,) = Proposer(MODEL, 0.0, mean)._aims([job])
    _, window = WindowDenoiser(MODEL).window([*known, hidden, *known], 30)
    assert hidden in window and len(window) == 11
    assert torch.allclose(aim, torch.nn.functional.normalize(mean([window])[0], dim=-1), atol=1e-5)
    (unaware,) = Proposer(MODEL, 0.0)._aims([job])
    assert torch.allclose(unaware, torch.nn.functional.normalize(whole, dim=-1), atol=1e-5)


def test_a_found_text_is_looked_at_no_wider():
    """A text that the surrogate is sure of got as many proposals as one that is wrong: three quarters of the time.

    Each gap still gets runners-up, which its probability is made of.
    """
    row, calls = [*TEXT[:3], MASK, *TEXT[4:6], MASK], []
    for stop in (1.0, -1.0):
        model = with_surrogate()
        model.generation_config = type(model.generation_config)(search={"stop_cosine": stop})
        own = model.embed(torch.tensor([[*TEXT, END]])) + 0.2 * unit_vectors(1, seed=9)
        output = model.fill(torch.nn.functional.normalize(own, dim=-1), [row], num_proposals=16, num_sweeps=1)
        calls.append(output.num_surrogate_calls)
        assert all(gap.alternatives for gap in output.texts[0].gaps)
    assert calls[1] <= 3 + 2 * 4 < 2 * 8 <= calls[0]


def test_a_found_text_ends_its_sweep():
    """Gaps that are left in a later sweep would be searched four times as widely for a text that is right already."""
    row, model = [MASK, *TEXT[1:3], MASK, *TEXT[4:6], MASK], with_surrogate()

    def cosines(target: torch.Tensor, stop: float | None) -> list[float]:
        seen: list[float] = []
        model.generation_config = type(model.generation_config)(search={"stop_cosine": stop})
        model.fill(target, [row], num_proposals=6, num_sweeps=4, on_step=lambda texts: seen.append(texts[0].cosine))
        return seen

    num_ended, own = 0, model.embed(torch.tensor([[*TEXT, END]]))
    for seed in range(8):
        target = torch.nn.functional.normalize(own + unit_vectors(1, seed=seed), dim=-1)
        seen = cosines(target, None)
        for step in range(3, len(seen) - 1):
            if seen[step] > seen[step - 1] + 1e-4 and step % 3 < 2:  # not with the last gap of a sweep
                assert len(cosines(target, seen[step] - 1e-5)) == step + 1
                num_ended += 1
    assert num_ended


@pytest.mark.parametrize("judge", ["surrogate", "encoder"])
def test_every_word_of_a_list_is_judged(judge):
    """A list is an attack of its own: the denoiser's favourites alone were judged, and others were never tried."""
    names = ["anna", "li", "you", "owe", "us", "dear"]
    output = (with_surrogate() if judge == "surrogate" else MODEL).fill(
        unit_vectors(1),
        ["dear <NAME> you"],
        TOKENIZER,
        "surrogate" if judge == "surrogate" else encode_texts,
        choices={"NAME": names},
        num_proposals=2,
        num_sweeps=1,
    )
    assert max(output.num_surrogate_calls, output.num_feedback_calls) >= len(names)


def test_words_of_a_list_may_be_long():
    """An entry of more tokens than a free gap may have was left out in silence, which looked like a result."""
    names = ["anna", "li you owe us", "us"]
    target = encode_texts(["dear li you owe us you"])
    (filled,) = MODEL.fill(
        target, ["dear <NAME> you"], TOKENIZER, encode_texts, choices={"NAME": names}, max_gap_tokens=2
    ).texts
    assert filled.gaps[0].text == "li you owe us" and filled.verdict == "verified"


@pytest.mark.parametrize("judge", ["surrogate", "encoder"])
def test_a_surrogate_judges_texts_longer_than_the_canvas(judge):
    """One that is the encoder itself reads as far as that: it was cut at the canvas, and nothing but 31 tokens filled.

    Of a long text a wrong word costs less than the surrogate errs, so a cosine alone must not end the search.
    """
    model, long = with_surrogate(), [*range(5, 17), MASK, *range(20, 26)]
    model.generation_config = type(model.generation_config)(search={"stop_cosine": -1.0})
    with pytest.raises(EmbInvError, match="the surrogate judges 11 at most"):
        model.fill(unit_vectors(1), [long])
    model.config.surrogate_length = 19
    settings = {"num_proposals": 16, "num_checked": 2, "num_sweeps": 1}
    if judge == "surrogate":
        output = model.fill(unit_vectors(1), [long], **settings)
        assert len(output.texts[0].ids) == 19 and 8 <= output.num_surrogate_calls <= 2 + 8
    else:
        output = model.fill(unit_vectors(1), [long], feedback=encode_ids, **settings)
        assert output.num_feedback_calls <= 2 + 2 * 2 < 8 <= output.num_surrogate_calls


def test_a_very_long_text_is_not_searched_twice(monkeypatch):
    """The surrogate's own search of 254 tokens took three times as long as the encoder's, and saved few calls."""
    model, long = with_surrogate(), [*range(5, 17), MASK, *range(20, 26)]
    model.config.surrogate_length = 19
    settings = {"feedback": encode_ids, "num_proposals": 16, "num_checked": 2, "num_sweeps": 1}
    calls, target = [], vector_of([*range(5, 17), 40, *range(20, 26)])
    for longest in (4, 1):
        monkeypatch.setattr(filling_embinv, "LONGEST", longest)
        output = model.fill(target, [long], **settings)
        calls.append((output.num_feedback_calls, output.num_surrogate_calls))
    assert calls[1][0] <= 2 + 2 and 8 <= calls[1][1] < calls[0][1]


def test_gaps_of_different_windows_are_filled_together():
    """No canvas holds both gaps: the second one would be written without the first one's words, or at its position."""
    text = [*range(5, 17), 7, 12, *range(20, 26), 30, 9]
    row = list(text)
    row[2] = row[18] = row[21] = MASK
    (filled,) = MODEL.fill(vector_of(text), [row], feedback=encode_ids, num_proposals=VOCAB).texts
    assert filled.ids == tuple(text) and filled.verdict == "verified"


def test_a_partial_filling_that_cannot_win_is_dropped():
    """Gaps of several tokens cost a pass each: those that are less likely already than enough whole ones cost it, too.

    What can still win must stay, and what was tried before must not count as whole.
    """
    search = search_of(((10,),), (1, 2))
    jobs = [Job(search, 0, search.beam[0], True, 2)]
    done = [[((11,), -1.0), ((12,), -2.0), ((13,), -9.0)]]
    two, three = (0, (MASK, MASK)), (0, (MASK,) * 3)
    partial = {two: [((14, MASK), -1.5), ((15, MASK), -2.5)], three: [((16, MASK, MASK), -3.0)]}
    proposer = Proposer(MODEL, 0.0)
    assert proposer._promising(jobs, done, partial) == {two: [((14, MASK), -1.5)]}
    search.tried[((12,),)] = search.beam[0]
    assert proposer._promising(jobs, done, partial) == partial
    assert proposer._promising([replace(jobs[0], count=4)], done, partial) == partial


def test_the_likelihood_decides_as_far_as_the_vector_does_not():
    """λ · log p outweighed what a word changes: near the vector the denoiser's first choice stood against its cosine.

    The better the surrogate and the longer the text, the more often. Far from the vector log p has to decide.
    """
    model, long = with_surrogate(), [*range(5, 17), MASK, *range(20, 26)]
    model.config.surrogate_length = 19
    own = model.embed(torch.tensor([[*range(5, 17), 40, *range(20, 26), END]]))
    far = torch.nn.functional.normalize(own + 0.8 * unit_vectors(1, seed=9), dim=-1)
    settings = {"num_proposals": 2 * VOCAB, "num_sweeps": 1}
    for weight in (0.0, 10.0):
        (filled,) = model.fill(own, [long], likelihood_weight=weight, **settings).texts
        assert filled.ids[12] == 40 and filled.cosine > 0.9999
    nearest, likeliest = (model.fill(far, [long], likelihood_weight=w, **settings).texts[0] for w in (0.0, 10.0))
    assert nearest.cosine > likeliest.cosine


def test_small_differences_of_a_long_text_count():
    """The probability was that of a short text, where the same difference in cosine means little."""
    finish = Finish(None, "surrogate", lambda p, _, cosine: p, 11)
    short, same, twice = (finish._weights([0.5, 0.499], count)[0] for count in (5, 11, 22))
    assert short == same < twice
    sure = Finish(None, "surrogate", lambda p, _, cosine: 0.999, 11)
    far, farther = (sure._chances({(1,): 0.5, (2,): 0.5}, (1,), 1, 0.9, count)[(1,)] for count in (44, 45))
    assert far > 0.99 and farther == pytest.approx(0.5)


def test_texts_that_agree_on_a_gap_make_it_surer():
    """The probability came from the nearest text with another word, however many texts beside it had this one."""
    text = RedactedText(((5,), (), (6,)), (), (Gap(), Gap()))
    search = TextSearch(text, torch.zeros(4), [])
    for first, second, score in ((1, 1, 0.95), (1, 2, 0.949), (1, 3, 0.948), (2, 1, 0.947)):
        fillings = ((first,), (second,))
        search.tried[fillings] = Hypothesis(fillings, (0.0, 0.0), torch.zeros(4), score, score)
    search.rank(2)
    agreed, open_ = Finish(None, "surrogate", lambda p, _, cosine: p, 11)(search).gaps
    weights = [math.exp(150 * score) for score in (0.95, 0.949, 0.948, 0.947)]
    assert agreed.probability == pytest.approx(sum(weights[:3]) / sum(weights))
    assert open_.probability == pytest.approx((weights[0] + weights[3]) / sum(weights))
    assert [one.ids for one in open_.alternatives] == [(2,), (3,)]
    assert open_.alternatives[0].probability == pytest.approx(weights[1] / sum(weights))
    assert open_.alternatives[0].cosine == 0.949


def test_the_text_that_is_found_has_the_tokenizers_tokens():
    """First guesses were never checked: "ununableable" stayed, as nothing that the tokenizer writes came as near."""
    model = awaken(tiny_model(**with_vocabulary(len(SPECIAL + PIECES))))
    encode = functools.partial(encode_texts, tokenizer=PIECE_TOKENIZER)
    for seed in range(12):
        text, redacted = [
            ("dear anna , you owe us 350 .", "dear ▇▇▇ , you owe us ███ ."), ("owe us €350 , dear", "owe us €▇▇▇ , █"),
        ][seed % 2]  # fmt: skip
        target = torch.nn.functional.normalize(encode([text]) + 0.9 * unit_vectors(1, seed=seed), dim=-1)
        settings = {"num_proposals": 4, "num_sweeps": 1, "likelihood_weight": 0.0}
        (filled,) = model.fill(target, [redacted], PIECE_TOKENIZER, encode, **settings).texts
        assert list(filled.ids) == PIECE_TOKENIZER(filled.text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "tokenizer, redacted, words, hidden",
    [
        (PIECE_TOKENIZER, "owe us €<X> .", ["4", "350", "5"], "350"),
        (PIECE_TOKENIZER, "the <X>th of may", ["dear", "4", "5"], "4"),
        (BYTE_TOKENIZER, "dear <X>, you owe us", ["li", "anna", "bob"], "anna"),
        (BYTE_TOKENIZER, "dear <X>, you owe us", None, "anna"),
        (PIECE_TOKENIZER, "owe us €<X> .", None, "35"),
        (PIECE_TOKENIZER, "the <X>th of may", None, "4"),
        (PIECE_TOKENIZER, "you un<X> , us", None, "able"),
    ],
)
@pytest.mark.parametrize("judge", ["surrogate", "encoder"])
def test_a_gap_that_touches_words_is_filled(tokenizer, redacted, words, hidden, judge):
    """The right word has other tokens there than alone, and was never tried; a wrong one was called likely."""
    model = with_surrogate(**with_vocabulary(len(tokenizer)), mask_token_id=tokenizer.mask_token_id)
    model.requires_grad_(False)

    def encode(texts: list[str]) -> torch.Tensor:
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return torch.cat([model.embed(torch.tensor([[*row, END]])) for row in rows])

    whole = redacted.replace("<X>", hidden)
    arguments = {"choices": {"X": words}} if words else {"max_gap_tokens": 2}
    feedback = encode if judge == "encoder" else "surrogate"
    settings = {"num_proposals": 600, "num_beams": 20, "likelihood_weight": 0.0}
    (filled,) = model.fill(encode([whole]), [redacted], tokenizer, feedback, **arguments, **settings).texts
    assert filled.text == whole and filled.cosine > 1 - 1e-5 and filled.gaps[0].text == hidden


def test_a_guess_that_the_tokenizer_would_not_write_is_never_sure():
    """With nothing else tried, a guess that cannot be right had the probability 1."""
    search = search_of(((10,),), (1,))
    best = replace(search.beam[0], cosine=0.95, score=0.95)
    search.tried, search.misspelt = {best.fillings: best}, {(0, (10,))}
    search.rank(2)
    filled = Finish(None, "surrogate", lambda p, _, cosine: p, 11)(search)
    assert filled.gaps[0].probability == 0 and filled.verdict == "undecided"
    search.tried[((11,),)] = replace(best, fillings=((11,),), cosine=0.9, score=0.9)
    search.rank(2)
    assert search.best.fillings == ((11,),) and list(search.tried) == [((11,),)]


def long_case() -> tuple:
    """A model whose surrogate judges 38 tokens, an encoder, a redacted text of 38, and its vector."""
    size = len(SPECIAL + WORDS)
    model = awaken(tiny_model(surrogate_rank=4, surrogate_length=38, **with_vocabulary(size)))  # of 40 positions
    table = unit_vectors(size, seed=5)

    def encode(texts: list[str]) -> torch.Tensor:
        rows = TOKENIZER(list(texts), add_special_tokens=False)["input_ids"]
        return torch.nn.functional.normalize(torch.stack([table[row].sum(dim=0) for row in rows]), dim=-1)

    redacted = "dear anna " * 18 + "*** li"
    vector = encode([redacted.replace("***", "london")]) + 0.08 * unit_vectors(1)
    return model, encode, redacted, torch.nn.functional.normalize(vector, dim=-1)


def test_the_scout_is_given_no_text_that_it_cannot_judge():
    """Beside an encoder that reads on, longer fillings went to the surrogate, too: IndexError within the search."""
    model, encode, redacted, target = long_case()
    (filled,) = model.fill(target, [redacted], TOKENIZER, encode).texts
    assert filled.text.startswith("dear anna dear") and filled.cosine > 0.9


def test_the_surrogate_judges_no_text_with_an_end_inside():
    """It judged what stood before a written [SEP], and with it a gap behind, as if that were the text."""
    model, row = with_surrogate(), [7, END, 12, MASK, 9]
    target = vector_of([7, END, 12, 30, 9])
    with pytest.raises(EmbInvError, match="text 0 holds the tokenizer's end token.*: give the encoder"):
        model.fill(target, [row], feedback="surrogate")
    output = model.fill(target, [row], feedback=encode_ids)
    assert output.texts[0].ids == (7, END, 12, 30, 9) and output.num_surrogate_calls == 0


@pytest.mark.parametrize(
    "text, choices", [("dear *** [SEP] you", None), ("dear <NAME> you", {"NAME": ["anna", "li [SEP]"]})]
)
def test_the_surrogate_judges_no_end_in_a_gap(text, choices):
    """[SEP] is a mark by its brackets, and may be an entry of a list; its text was judged up to there as well."""
    model = with_surrogate(**with_vocabulary(len(SPECIAL + WORDS)))
    target = encode_texts(["dear anna"])
    with pytest.raises(EmbInvError, match="text 0 holds the tokenizer's end token.*: give the encoder"):
        model.fill(target, [text], TOKENIZER, choices=choices)
    assert model.fill(target, [text], TOKENIZER, encode_texts, choices=choices).num_surrogate_calls == 0


def test_entries_of_a_list_that_do_not_fit_are_left_out():
    """The last entry was judged first, however long: IndexError. Entries that nobody tried must be told."""
    model = awaken(tiny_model(surrogate_rank=4, **with_vocabulary(len(SPECIAL + WORDS))))  # it judges 11 tokens
    nine, redacted = " ".join(["li"] * 9), "dear anna *** li"
    choices = {"": ["anna", nine]}
    with pytest.warns(UserWarning, match=r"text 0: 1 of the 2 choices for \*\*\* are left out: with them it has more"):
        (filled,) = model.fill(unit_vectors(1), [redacted], TOKENIZER, choices=choices).texts
    assert filled.gaps[0].text == "anna"
    target = encode_texts([redacted.replace("***", nine)])
    (filled,) = model.fill(target, [redacted], TOKENIZER, encode_texts, choices=choices).texts
    assert filled.gaps[0].text == nine and filled.verdict == "verified"


def test_entries_of_a_list_may_go_beyond_what_the_encoder_reads():
    """They were left out, though the encoder itself reads no more of them."""
    model, _, redacted, _ = long_case()
    nine = " ".join(["li"] * 9)
    ids = TOKENIZER(redacted.replace("***", nine), add_special_tokens=False)["input_ids"]
    own = model.embed(torch.tensor([[*ids[:38], TOKENIZER.sep_token_id]]))
    (filled,) = model.fill(own, [redacted], TOKENIZER, choices={"": ["anna", nine]}).texts
    assert filled.gaps[0].text == nine and filled.cosine > 0.9999


def test_a_list_that_no_mark_asks_for_is_told():
    """A list for a mark that no text has looked like one that was used."""
    texts, choices = ["dear <NAME> , you", "dear *** , you"], {"NAMES": ["anna"], "": ["li"]}
    with pytest.warns(UserWarning, match="choices for 'NAMES': no mark of texts 0 to 1 has this word"):
        MODEL.fill(unit_vectors(2), texts, TOKENIZER, encode_texts, choices=choices, num_sweeps=1)


def test_many_texts_are_filled_in_parts(monkeypatch):
    """What a search has tried takes 15 MB: of a thousand texts it filled the memory. No text may be lost or swapped.

    A text that cannot be filled must be told before the first part has cost minutes.
    """
    rows = [[*TEXT[:index], MASK, *TEXT[index + 1 :]] for index in range(5)]
    vectors, calls, shown = vector_of(TEXT).expand(5, -1), [], []

    def encoder(ids: torch.Tensor) -> torch.Tensor:
        calls.append(len(ids))
        return encode_ids(ids)

    settings = {"feedback": encoder, "num_proposals": 2 * VOCAB, "num_sweeps": 1}
    whole = MODEL.fill(vectors, rows, **settings)
    calls.clear()
    monkeypatch.setattr(filling_embinv, "PART_TEXTS", 2)
    parts = MODEL.fill(vectors, rows, on_step=lambda texts: shown.append(len(texts)), **settings)
    assert [one.ids for one in parts.texts] == [one.ids for one in whole.texts] == [tuple(TEXT)] * 5
    assert parts.num_feedback_calls == whole.num_feedback_calls == sum(calls) and set(shown) == {2, 4, 5}
    calls.clear()
    with pytest.raises(EmbInvError, match="text 4 has no gap"):
        MODEL.fill(vectors, [*rows[:4], TEXT], **settings)
    assert not calls
