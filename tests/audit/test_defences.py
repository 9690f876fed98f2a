"""Defences and what breaks them."""

import numpy as np
import pytest

from modeling_embinv.audit.defences import (
    FAMILIES,
    DefenceResult,
    advice,
    binary,
    defences,
    first_dimensions,
    int8,
    noise,
    parse_families,
    procrustes,
    rotation,
)
from modeling_embinv.audit.figures import Figure
from modeling_embinv.audit.retrieval import Utility, nearest, utility
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.vectors_embinv import unit_rows

WIDTH = 24


def vectors(count: int, width: int = WIDTH) -> np.ndarray:
    return unit_rows(np.random.default_rng(1).standard_normal((count, width)))[0].astype(np.float64)


def test_procrustes_needs_as_many_pairs_as_numbers():
    """With one pair for each number the rotation is known; with a quarter, most of a vector stays hidden."""
    turn, plain, others = rotation(WIDTH, 0), vectors(WIDTH), vectors(200)[100:]
    back = others @ turn @ procrustes(plain @ turn, plain)
    assert (back * others).sum(axis=1).min() > 0.999
    few = plain[: WIDTH // 4]
    back = others @ turn @ procrustes(few @ turn, few)
    assert (back * others).sum(axis=1).mean() < 0.6


def test_a_rotation_keeps_every_ranking_and_hides_the_vectors():
    """A matrix that is not orthogonal would spoil search, and look like a defence that costs something."""
    turn, stored = rotation(WIDTH, 3), vectors(60)
    assert np.allclose(turn @ turn.T, np.eye(WIDTH))
    own = np.arange(20)
    true, found = nearest(stored[own], stored, own), nearest(stored[own] @ turn, stored @ turn, own)
    assert utility(true, found) == pytest.approx((1, 1))
    assert abs((stored @ turn * stored).sum(axis=1).mean()) < 0.3


def test_utility_of_constructed_rankings():
    """The best place is worth most, and a ranking of strangers nothing."""
    true = np.array([[0, 1, 2]])
    assert utility(true, np.array([[7, 8, 9]])) == (0, 0)
    swapped = utility(true, np.array([[2, 1, 0]]))
    assert swapped.recall == 1 and 0.7 < swapped.ndcg < 1
    last_lost = utility(true, np.array([[0, 1, 9]]))
    first_lost = utility(true, np.array([[9, 1, 2]]))
    assert last_lost.recall == pytest.approx(first_lost.recall) and last_lost.ndcg > first_lost.ndcg


def test_a_query_is_not_its_own_neighbour():
    """Each vector is nearest to itself, so that ten in a hundred hits were free."""
    stored = vectors(30)
    assert not (nearest(stored, stored, np.arange(30)) == np.arange(30)[:, None]).any()


def test_quantised_and_cut_vectors():
    """int8 keeps a vector to a percent; signs keep signs; cut vectors keep their beginning alone."""
    plain, generator = vectors(50), np.random.default_rng(0)
    assert (unit_rows(int8(plain, generator))[0] * plain).sum(axis=1).min() > 0.999
    assert (binary(plain, generator) * plain >= 0).all()
    cut = first_dimensions(6)(plain, generator)
    assert (cut[:, :6] == plain[:, :6]).all() and not cut[:, 6:].any()
    assert np.std(noise(0.05)(plain, generator) - plain) == pytest.approx(0.05, rel=0.05)


def test_families_of_the_command():
    """A mistyped defence was left out, and the report looked complete."""
    assert parse_families("all") == FAMILIES and parse_families("int8, noise") == ("int8", "noise")
    assert {one.family for one in defences(("noise", "rotation"), WIDTH, 0)} == {"noise", "rotation"}
    assert {one.family for one in defences(FAMILIES, WIDTH, 0)} == set(FAMILIES)
    with pytest.raises(EmbInvError, match="nosie"):
        parse_families("nosie")


def test_advice_follows_the_measurement():
    """A defence that hides nothing is not praised for keeping search whole."""
    bare = DefenceResult("none", "none", Utility(1, 1), Figure(0.6, 0.5, 0.7, 6, 10), 1.0, "")
    hidden, half, leaky = Figure(0.02, 0.0, 0.05, 0, 10), Figure(0.4, 0.3, 0.45, 4, 10), Figure(0.5, 0.4, 0.6, 5, 10)
    assert advice("int8", Utility(0.99, 0.99), leaky, bare).startswith("Does not help")
    assert "spoils search" in advice("noise", Utility(0.3, 0.3), hidden, bare)
    assert "pairs" in advice("rotation", Utility(1, 1), hidden, bare)
    assert advice("noise", Utility(0.9, 0.9), half, bare).startswith("Helps a little")
    assert advice("noise", Utility(0.9, 0.9), hidden, bare).startswith("Helps against this attacker")
