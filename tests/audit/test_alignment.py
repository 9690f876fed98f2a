"""What pairs of held and true vectors teach."""

import numpy as np
import pytest

from modeling_embinv.audit.alignment import PENALTIES, _maps, align
from modeling_embinv.audit.known_pairs import FEWEST, known_pairs
from modeling_embinv.audit.protections import binary, first_dimensions, noise, rotation
from modeling_embinv.audit.sample import Sample
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.vectors_embinv import unit_rows

WIDTH = 24


def vectors(count: int, seed: int = 1) -> np.ndarray:
    """Unit vectors whose last numbers follow from the first ones, as an encoder's do in part."""
    free = np.random.default_rng(seed).standard_normal((count, WIDTH // 2))
    mixed = free @ np.random.default_rng(9).standard_normal((WIDTH // 2, WIDTH))
    return unit_rows(mixed)[0].astype(np.float64)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((unit_rows(one)[0] * other).sum(axis=1).mean())


def test_a_rotation_is_undone_by_pairs_of_other_vectors():
    """The map was fitted and judged on the same pairs, so that a useless one looked perfect."""
    turn, known, others = rotation(WIDTH, 0), vectors(200), vectors(100, seed=2)
    found = align(known @ turn, known)
    assert found.kind != "none" and found.pairs == 200 and found.cosine > 0.99
    assert abs(cosine(others @ turn, others)) < 0.5 < 0.99 < cosine(found.apply(others @ turn), others)


@pytest.mark.parametrize("protect", [noise(0.3), binary, first_dimensions(8)], ids=["noise", "binary", "cut"])
def test_a_linear_map_brings_defended_vectors_nearer(protect):
    """An attacker who takes defended vectors as they are makes the defence look better than it is."""
    generator = np.random.default_rng(0)
    known, others = vectors(400), vectors(100, seed=2)
    held, leaked = protect(known, generator), protect(others, generator)
    found = align(held, known)
    assert found.kind.endswith("linear")
    assert cosine(found.apply(leaked), others) > cosine(leaked, others) + 0.02
    assert found.cosine == pytest.approx(cosine(found.apply(leaked), others), abs=0.03)
    assert np.allclose(np.linalg.norm(found.apply(leaked), axis=1), 1, atol=1e-5)


def test_vectors_that_need_no_map_keep_theirs():
    """A map that was fitted to the noise of a few pairs spoils vectors that were right."""
    known = vectors(60)
    found = align(3 * known, known)
    assert found.kind == "none" and np.allclose(found.apply(5 * known), known, atol=1e-6)


def test_a_few_pairs_are_enough_for_a_small_change():
    """Plain regression on fewer pairs than numbers shrinks vectors to their mean, and looked worse than no map."""
    generator = np.random.default_rng(0)
    cut, known, others = first_dimensions(16), vectors(20), vectors(100, seed=2)
    found = align(cut(known, generator), known)
    assert cosine(found.apply(cut(others, generator)), others) > cosine(cut(others, generator), others) + 0.01


@pytest.mark.parametrize("count", [10, 200])
def test_the_regression_is_a_ridge_regression(count):
    """Equations of the pairs, for few of them, or of the numbers: a penalty of another size in one of the two."""
    true, others = vectors(count), vectors(50, seed=2)
    held = unit_rows(true * np.linspace(0.5, 1.5, WIDTH))[0].astype(np.float64)
    centred, missing = held - held.mean(axis=0), true - held
    for penalty in PENALTIES:
        weight = np.sqrt(penalty * (centred**2).sum() / min(centred.shape))
        rows = np.concatenate([centred, weight * np.eye(WIDTH)])
        wanted = np.concatenate([missing - missing.mean(axis=0), np.zeros((WIDTH, WIDTH))])
        change = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        moved = others + (others - held.mean(axis=0)) @ change + missing.mean(axis=0)
        found = dict(_maps(held, true))["none", penalty](others)
        np.testing.assert_allclose(found, unit_rows(moved)[0], atol=1e-6)


def test_unrelated_vectors_teach_nothing():
    """Pairs that do not belong together must not look like a broken defence."""
    assert align(vectors(100, seed=5), np.random.default_rng(3).permutation(vectors(100))).cosine < 0.5


def sample(texts, held: np.ndarray) -> Sample:
    return Sample(held.astype(np.float32), np.arange(len(held)), None, texts, len(held), "")


def test_copies_of_a_pair_are_one_pair():
    """Copies lay among the fitted and the left-out pairs: a map was chosen that was useless, and looked perfect."""
    turn, true = rotation(WIDTH, 0), np.random.default_rng(0).standard_normal((21, WIDTH))
    texts = [f"Ticket {number}" for number in range(21)]
    copies = [*texts, *(f"  {text.upper()}" for text in texts), *texts * 3]
    by_text = dict(zip(copies, np.tile(true, (5, 1)), strict=True))
    attacked = sample(["TICKET 20"], true[:1])

    def encode(texts):
        return np.stack([by_text[text] for text in texts])

    found = known_pairs(sample(copies, np.tile(true @ turn, (5, 1))), attacked, encode)
    assert found.texts == texts[:20] and found.held.shape == found.true.shape == (20, WIDTH)
    assert align(found.held, found.true).cosine < 0.9  # 20 pairs of unrelated vectors of 24 numbers teach little
    with pytest.raises(EmbInvError, match="19 pairs .* at least 20 are needed"):
        known_pairs(sample(copies, np.tile(true @ turn, (5, 1))), sample(["ticket 20", "ticket 0"], true[:2]), encode)
    assert FEWEST == 20
