"""Personal data and secrets in texts, by the libraries of the extra `audit`."""

import itertools

import pytest

from modeling_embinv.audit import kinds
from modeling_embinv.audit.kinds import KINDS, KindFinder

TEXT_KINDS = (
    ("Please call +1 212 555 0199.", {"phone": "+1 212 555 0199"}),
    ("Or mail karen.miller@example.com.", {"e-mail": "karen.miller@example.com"}),
    ("My AWS key is AKIAIOSFODNN7EXAMQLE", {"credentials": "AKIAIOSFODNN7EXAMQLE"}),
    ("The patient takes insulin for his diabetes.", {"health": "insulin"}),
    ("My card is 4012 8888 8888 1881.", {"identifiers": "4012 8888 8888 1881"}),
)  # fmt: skip
NAMED = "Karen Miller owes Acme Corp 35 dollars since March 2024, she said in Berlin."


@pytest.fixture(scope="module")
def finder():
    return KindFinder()


@pytest.mark.parametrize("text, expected", TEXT_KINDS)
def test_patterns_and_lists(finder, text, expected):
    """A kind that nothing finds is reported as not leaking."""
    (found,) = finder.find([text])
    pieces = {one.kind: text[one.start : one.end] for one in found}
    assert expected.items() <= pieces.items()


@pytest.mark.skipif(kinds.spacy_model() is None, reason="needs an English model of spaCy")
def test_names_dates_and_money(finder):
    """Presidio leaves money and numbers out unless it is told their labels."""
    (found,) = finder.find([NAMED])
    pieces = {one.kind: NAMED[one.start : one.end] for one in found}
    assert pieces["names"] == "Karen Miller" and pieces["money"] == "35 dollars" and pieces["dates"] == "March 2024"
    assert pieces["places"] == "Berlin"


def test_entities_do_not_overlap(finder):
    """The user name of an address counted as a name as well, and was recovered twice."""
    texts = [text for text, _ in TEXT_KINDS] + [NAMED, ""]
    for found in finder.find(texts):
        assert all(one.end <= other.start for one, other in itertools.pairwise(found))
        assert all(one.kind in KINDS and one.words for one in found)


def test_a_text_that_is_too_long_for_spacy(finder):
    """One text of more than a million characters ended the audit, after the attack."""
    long = f"{NAMED} " + f"{'a' * 100} " * 9_950 + NAMED
    assert len(long) > 1_000_000
    (short,), (found,) = finder.find([NAMED]), finder.find([long])
    own = [one for one in found if one.end <= len(NAMED) or one.start >= len(long) - len(NAMED)]
    assert short and own == [
        *short, *(one._replace(start=one.start + len(long) - len(NAMED), end=one.end + len(long) - len(NAMED))
                  for one in short)
    ]  # fmt: skip


def test_without_a_spacy_model_names_come_from_lists(monkeypatch):
    """Presidio downloads a model that is missing; an audit must not."""
    monkeypatch.setattr(kinds, "spacy_model", lambda: None)
    kinds._presidio.cache_clear()
    try:
        (found,) = KindFinder().find(["Yesterday Karen flew to Berlin, call +1 212 555 0199."])
        assert {"names", "places", "phone"} <= {one.kind for one in found}
    finally:
        kinds._presidio.cache_clear()
