"""What counts as recovered."""

import random

import pytest

from modeling_embinv.audit.attack import Attacker, Recovered
from modeling_embinv.audit.findings import measure, measure_kinds, other_texts
from modeling_embinv.audit.tiers import OTHER_TEXT, _floors
from modeling_embinv.audit.words import content_words, holds_phrase, words
from tests.audit.conftest import entities, report_of, sample_of, tier_result


def test_words_without_case_and_stop_words():
    """Words that every text holds would make any guess look good."""
    assert words("Dr. Müller’s 4,500 €!") == ["dr", "muller", "'s", "4", "500"]
    assert content_words("The dog and I paid 4,500 to Ann.") == {"dog", "paid", "4", "500", "ann"}
    assert content_words("a I s 7") == {"7"}


def test_figures_of_constructed_pairs():
    """Counted by hand: 3 of 4 content words, one whole text of two."""
    originals = ["Karen paid Bob.", "The server failed?"]
    figures = measure(originals, ["karen paid someone", "the server failed"], {}, [0.9, 1.0])
    assert (figures["words"].hits, figures["words"].count) == (4, 5)
    assert figures["exact"].value == 0.5 and figures["cosine"].value == pytest.approx(0.95)
    assert figures["f1"].value == pytest.approx((2 / 3 + 1) / 2)


def test_a_repeated_word_counts_once():
    """A guess that repeats its one right word had a recall above 1."""
    figures = measure(["card card card"], ["card card"], {})
    assert (figures["words"].hits, figures["words"].count) == (1, 1)
    assert figures["exact"].value == 0


def test_the_floor_is_the_recovered_text_of_another_row():
    """Texts that are all alike are recovered by any of their vectors: the floor says so."""
    originals = ["where is my card", "my card is lost", "send a card"]
    recovered = ["the card", "a card", "card"]
    figures = measure(originals, recovered, {"other": other_texts(recovered)})
    assert figures["words"].floors["other"] == figures["words"].value
    assert not figures["words"].above_floor


def test_recall_by_kind():
    """Words of a name that came back apart are no name, and another row's name is none of this one's."""
    texts = ["Karen Miller owes 4,500 dollars.", "Mail ann@site.org or Karen Miller."]
    found = [
        entities(texts[0], names="Karen Miller", money="4,500 dollars"),
        entities(texts[1], e_mail="ann@site.org", names="Karen Miller"),
    ]
    kinds = measure_kinds(found, ["karen miller owes 4 500 dollars", "miller or karen mail ann @ site . org"], {})
    assert {kind: (one.whole.hits, one.whole.count) for kind, one in kinds.items()} == {
        "e-mail": (1, 1), "money": (1, 1), "names": (1, 2)
    }  # fmt: skip
    assert kinds["names"].words.value == 1
    assert measure_kinds([[], []], ["a", "b"], {}) == {}


def test_phrases_stand_side_by_side():
    """A date whose day and month came back in other sentences is no date."""
    assert holds_phrase(["on", "3", "may", "2024"], ["3", "may"])
    assert not holds_phrase(["may", "3"], ["3", "may"])
    assert not holds_phrase(["3", "of", "may"], ["3", "may"]) and not holds_phrase([], ["3"])


def test_the_vector_of_another_text_is_none_of_the_same_text():
    """The next row of a store with copies holds the same text: what leaked was its own floor, and no finding."""
    originals = ["One card", "one  card", "Two cars", "Two cars", "One card"]
    assert other_texts(list("abcde"), originals) == ["c", "c", "e", "e", "c"]
    assert other_texts(list("abcde"), ["a", "a", "a", "a", "b"]) == ["e", "e", "e", "e", "a"]
    assert other_texts(["a", "b"], ["same", "Same "]) == other_texts(["a"], ["one"]) == other_texts([], []) == []
    assert other_texts(["a", "b", "c"]) == ["b", "c", "a"]


def test_copies_beside_one_another_change_no_floor():
    """The same store had a severity of none or critical, by the order of its rows."""
    texts = [f"parcel{row // 20} driver{row // 20} street{row // 20} house{row // 20}" for row in range(200)]
    back = [" ".join(text.split()[: 4 - row // 20 % 3]) for row, text in enumerate(texts)]
    order = random.Random(0).sample(range(200), 200)
    for rows in (range(200), order):
        report = report_of(tier_result([texts[row] for row in rows], [back[row] for row in rows]))
        assert report.figures["words"].floors[OTHER_TEXT] == 0 and report.severity == "critical"


def test_texts_that_are_all_alike_have_no_other(tmp_path):
    """A floor of 100 % by another row's vector, which is the same text's."""
    attacker = Attacker(None, None, tmp_path)
    for texts, names in ((["red house", "Red house"], []), (["red house", "blue car"], [OTHER_TEXT])):
        assert list(_floors(attacker, sample_of(texts), Recovered(["a", "b"], [], None, None))) == names
