"""Decoys of guesses: of the same kind as the guesses, or none at all."""

import re
import sys

import numpy as np
import pytest

from modeling_embinv.audit import decoys
from modeling_embinv.audit.decoys import Forms
from modeling_embinv.audit.guesses import rank_guesses
from modeling_embinv.audit.summary import alarms
from modeling_embinv.stores.rows import VectorBatch

PEOPLE = ("Brooke Warner", "Benjamin Riley", "Alyssa Spencer", "Erik Robles", "Andrew French", "Lauren Sims")


def encode(texts):
    """(N, 512) counts of three characters, hashed: fast, and addresses are near one another as an encoder has them."""
    found = np.full((len(texts), 512), 1e-3, np.float32)
    for row, text in enumerate(texts):
        padded = f"  {text.lower()} "
        for start in range(len(padded) - 2):
            found[row, sum(ord(c) * 37**n for n, c in enumerate(padded[start : start + 3])) % 512] += 1
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def ranked(guesses, texts):
    batch = VectorBatch(encode(texts), np.arange(len(texts)), None, list(texts))
    return rank_guesses(guesses, encode, texts, [(None, batch)], 512, 0)


def addresses(seed, count):
    """Made up as Faker's are, all at one domain."""
    faker = pytest.importorskip("faker").Faker("en_US")
    faker.seed_instance(seed)
    return [faker.unique.user_name() + "@example.com" for _ in range(count)]


@pytest.mark.parametrize(
    "guess, form",
    [
        ("fsnow@example.com", "e-mail"), ("Brooke Warner", "names"), ("anna smith", "names"),
        ("John F. Miller", "names"),
        ("order 4711", "digits"), ("4111 1111 1111 1111", "digits"), ("12.03.1985", "digits"),
        ("Acme Corporation", "other"), ("Zebedee", "other"), ("https://example.com/a", "other"),
        ("Write to fsnow@example.com before noon", "text"), ("the price of tea", "text"), ("biopsy", "text"),
        ("Can I top up my account with a cheque?", "text"), ("Please refund Anna Smith today", "text"),
        ("summer", "text"),
    ],
)  # fmt: skip
def test_the_form_of_a_guess(guess, form):
    """An address was a text of three to five words."""
    assert Forms(0).of(guess) == form


@pytest.mark.parametrize(
    "guess, pattern",
    [
        ("anna.smith@acme.com", r"[a-z']+\.[a-z']+@acme\.com"), ("a.smith7@acme.com", r"[a-z]\.[a-z']+\d@acme\.com"),
        ("chris00@acme.com", r"[a-z']+\d\d@acme\.com"), ("Brooke Warner", r"[A-Z][\w'-]+ [A-Z][\w'-]+"),
        ("JOHN F. MILLER", r"[A-Z'-]+ [A-Z]\. [A-Z'-]+"), ("order 4711", r"order [1-9]\d{3}"),
        ("31.12.1985", r"([012]\d|3[01])\.(0\d|1[012])\.(19|20)\d\d"), ("0049-7", r"0\d{3}-[1-9]"),
    ],
)  # fmt: skip
def test_decoys_have_the_pattern_of_the_guess(guess, pattern):
    """Addresses of another domain, or dates of a 97th day, are no fair decoys."""
    forms = Forms(0)
    made = [forms.variant(guess) for _ in range(20)]
    assert all(re.fullmatch(pattern, one) for one in made), made
    assert len(set(made)) > 5


def test_absent_addresses_raise_no_more_alarms_than_decoys():
    """57 of 60 absent addresses were found, "high": their decoys were prose."""
    known = addresses(7, 120)
    texts = [f"mail {one}" for one in known]
    found = ranked(addresses(8, 60), texts)
    assert len(found.alarms) <= 4 and found.severity in ("none", "low")
    assert [rates.form for rates in found.rates] == ["e-mail"] and found.rates[0].members == 120
    there = ranked(known[:60], texts)
    assert len(there.alarms) > 30 and there.severity == "high" and there.rates[0].true_alarms > 0.5


def test_pieces_of_a_form_are_found_in_the_texts():
    """What an alarm of a name is worth was told by pieces of prose."""
    forms, texts = Forms(0), ["Please refund Brooke Warner, order 4711.", "Brooke wrote to fsnow@example.com.", "no"]
    generator = np.random.default_rng(0)
    for guess, expected in (
        ("Erik Robles", {"Brooke Warner": 0}), ("Erik", {"Brooke": 1}), ("order 1234", {"order 4711": 0}),
        ("a@b.org", {"fsnow@example.com": 1}),
    ):  # fmt: skip
        pieces, origins = forms.pieces([guess], texts, 9, generator)
        assert {piece: texts.index(origin) for piece, origin in zip(pieces, origins, strict=True)} == expected | (
            {"Brooke": texts.index(origins[-1])} if guess == "Erik" else {}
        )


def test_guesses_without_a_fair_comparison_make_no_finding():
    """Companies were compared with prose; only their very text is told for sure."""
    texts = [f"The invoice of Acme Corporation is number {row}." for row in range(30)]
    found = ranked(["Acme Corporation", "Initech", "the price of tea"], texts)
    by_text = {one.text: one for one in found.ranking}
    assert not by_text["Acme Corporation"].is_alarm and by_text["Acme Corporation"].chance is None
    assert found.unjudged == 2 and "(2 have no fair comparison)" in alarms(found)
    only = ranked(["Initech", "Globex"], texts)
    assert only.severity == "none" and only.rates == [] and only.figure.floors == {} and only.false_alarms is None
    assert "(1 has no fair comparison)" in alarms(ranked(["Initech"], texts))
    assert alarms(only) == "0 of 2 guesses raise an alarm (2 have no fair comparison)"
    exact = ranked(["Initech"], [*texts, "Initech"])
    assert exact.severity == "critical" and exact.ranking[0].row == 30
    assert exact.as_dict(True)["ranking"][0]["form"] == "other"


def test_without_faker_names_and_addresses_have_no_fair_comparison(monkeypatch):
    """Without decoys of their kind they would be judged by prose again."""
    monkeypatch.setitem(sys.modules, "faker", None)
    monkeypatch.setitem(sys.modules, "faker.providers.person.en_US", None)
    forms = decoys.Forms(0)
    assert [forms.of(one) for one in (PEOPLE[0], "a@b.org", "order 4711")] == ["other", "other", "digits"]
