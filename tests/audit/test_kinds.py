"""Personal data and secrets in texts, by the libraries of the extra `audit`."""

import itertools

import pytest

from modeling_embinv.audit import kinds
from modeling_embinv.audit.kinds import KINDS, KindFinder

TEXT_KINDS = (
    ("Please call +1 212 555 0199.", {"phone": "+1 212 555 0199"}),
    ("Or mail karen.miller@example.com.", {"e-mail": "karen.miller@example.com"}),
    ("My AWS key is AKIAIOSFODNN7EXAMQLE", {"credentials": "AKIAIOSFODNN7EXAMQLE"}),
    ("The patient takes insulin.", {"health": "insulin"}),
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


GITHUB = ("ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8", "ghp_Z9y8X7w6V5u4T3s2R1q0P9o8N7m6L5k4J3i2")
WHOLE_KEYS = (
    (f"The ghp tokens are {GITHUB[0]} and {GITHUB[1]}, keep them", list(GITHUB)),
    (f"{GITHUB[0]} is the same as {GITHUB[0]}.", [GITHUB[0]] * 2),
    ("Deploy with glpat-hellOworld380_testin today", ["glpat-hellOworld380_testin"]),
    ("CI has glcbt-a1_hellOworld380_testinX today", ["glcbt-a1_hellOworld380_testinX"]),
    ("//registry.npmjs.org/:_authToken=npm_A1b2C3d4E5f6 for now", ["npm_A1b2C3d4E5f6"]),
    ("Use postgres://bob:hunter22secret@db:5432 here", ["hunter22secret"]),
    ("-----BEGIN RSA PRIVATE KEY-----", ["-----BEGIN RSA PRIVATE KEY-----"]),
)  # fmt: skip


@pytest.mark.parametrize("text, expected", WHOLE_KEYS)
def test_a_key_is_all_of_its_characters(finder, text, expected):
    """Of a GitHub token only "ghp" was the key: where that came back, a credential came back whole."""
    (found,) = finder.find([text])
    assert [text[one.start : one.end] for one in found if one.kind == "credentials"] == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("She takes insulin for her diabetes.", ["insulin", "diabetes"]),
        ("He has type 2 diabetes.", ["type 2 diabetes"]),
        ("He is HIV positive and has depression.", ["HIV", "depression"]),
        ("My grandmother has dementia, my son autism.", ["dementia", "autism"]),
        ("She is pregnant and caught covid.", ["pregnant", "covid"]),
        ("Flu or breast cancer?", ["Flu", "breast cancer"]),
        ("Chemotherapy against AIDS", ["Chemotherapy", "AIDS"]),
        ("his Parkinson's and fever", ["Parkinson's", "fever"]),
        ("The Burns supper was a shock, he burns aids for teaching.", []), ("Mr Parkinson shorts the flue.", []),
        ("Our parents give the hotel a rating of four, with high hopes and goals.", []),
        ("Diamonds from Fargo", []),
    ],
)  # fmt: skip
def test_illnesses_by_their_everyday_names(finder, text, expected):
    """Diabetes, HIV and pregnancies were missed, while "burns", "shock", "parents" and "rating" were health data."""
    (found,) = finder.find([text])
    assert [text[one.start : one.end] for one in found if one.kind == "health"] == expected


@pytest.mark.skipif(kinds.spacy_model() is None, reason="needs an English model of spaCy")
@pytest.mark.parametrize(
    "text, expected",
    [
        ("My account number is 000123456789.", {"identifiers": ["000123456789"]}),
        ("Please debit account 12345678 at sort code 20-00-00.", {"identifiers": ["12345678", "20-00-00"]}),
        ("order 4711 costs 12.50 EUR", {"numbers": ["4711", "12.50"]}),
        ("ORDER 12345678901234567890", {"numbers": ["12345678901234567890"]}),
        ("We met in 2019.", {"dates": ["2019"]}), ("born on 1985-03-12", {"dates": ["1985-03-12"]}),
        ("The account of 5 May is here.", {"dates": ["5 May"]}),
    ],
)  # fmt: skip
def test_numbers_are_no_dates(finder, text, expected):
    """An account number that came back was a date, which has no severity."""
    (found,) = finder.find([text])
    pieces = {}
    for one in found:
        pieces.setdefault(one.kind, []).append(text[one.start : one.end])
    assert {kind: own for kind, own in pieces.items() if kind in ("identifiers", "numbers", "dates")} == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("login https://admin:S3cretPw9@db.example.com/", ["S3cretPw9"]), ("password: hunter2", ["hunter2"]),
        ("user password: Tr0ub4dor&3.", ["Tr0ub4dor&3"]), ("pwd = 'a-b_c', ok", ["a-b_c"]),
        ("Forgot the password: please help", []), ("my password is hunter2", []),
    ],
)  # fmt: skip
def test_passwords(finder, text, expected):
    """A password in a URL was the name of an e-mail account, and one behind "password:" was not found."""
    (found,) = finder.find([text])
    assert [text[one.start : one.end] for one in found if one.kind == "credentials"] == expected
    assert all(one.kind != "e-mail" for one in found)


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
    long = f"{NAMED} " + f"{'a' * 1_000} " * 1_000 + NAMED
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
