"""Planted texts: their secrets, and that each kind of them is measured."""

from collections import Counter

import numpy as np

from modeling_embinv.audit.canaries import SENTENCES, plant
from modeling_embinv.audit.kinds import KINDS, KindFinder
from modeling_embinv.audit.report import FEWEST, SENSITIVE
from modeling_embinv.audit.run import PLANTED
from modeling_embinv.audit.words import holds_phrase, words


def encode(texts):
    return np.ones((len(texts), 4), np.float32)


def test_every_sensitive_kind_is_measured():
    """No password, key or health word that was planted was recognised, so that these kinds were never measured."""
    sample, kinds = plant(PLANTED, encode, 0)
    found = kinds.find(sample.texts)
    counts = Counter(one.kind for row in found for one in row)
    assert all(counts[kind] >= FEWEST for kind in SENSITIVE) and set(counts) <= set(KINDS)
    for text, row in zip(sample.texts, found, strict=True):
        assert "{" not in text and "[" not in text and row
        assert all(one.words and holds_phrase(words(text), list(one.words)) for one in row)


def test_planted_secrets_differ_by_seed_alone():
    """A killed audit that is resumed would compare its texts with other secrets."""
    texts = [plant(len(SENTENCES), encode, seed)[0].texts for seed in (0, 0, 1)]
    assert texts[0] == texts[1] and not set(texts[0]) & set(texts[2]) and len(set(texts[0])) == len(SENTENCES)


def test_secrets_have_the_forms_that_libraries_know():
    """Secrets in forms that nobody writes say nothing of those in a store."""
    sample, kinds = plant(PLANTED, encode, 0)
    own, theirs = kinds.find(sample.texts), KindFinder().find(sample.texts)
    for kind, least in (("e-mail", 1.0), ("health", 0.9), ("identifiers", 0.8), ("phone", 0.8), ("credentials", 0.4)):
        wanted = [(row, one.words) for row, found in enumerate(own) for one in found if one.kind == kind]
        found = {(row, one.words) for row, some in enumerate(theirs) for one in some if one.kind == kind}
        assert sum(one in found for one in wanted) >= least * len(wanted), kind
