"""Defences and what breaks them."""

import numpy as np
import pytest

from modeling_embinv.audit.alignment import procrustes
from modeling_embinv.audit.defences import DefenceResult, distinct, judged, told_rows
from modeling_embinv.audit.figures import Figure
from modeling_embinv.audit.protections import (
    FAMILIES,
    Defence,
    binary,
    defences,
    first_dimensions,
    int8,
    noise,
    parse_families,
    product_quantisation,
    rotation,
)
from modeling_embinv.audit.retrieval import LabelledSet, Utility, at_recall, labelled_texts, nearest, utility
from modeling_embinv.audit.sample import Sample
from modeling_embinv.audit.summary import matched
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.vectors_embinv import unit_rows
from tests.audit.conftest import sample_of

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


def test_product_quantisation_loses_more_with_fewer_bytes():
    """Codes of other vectors, or bytes that are counted as numbers, give nothing of a vector back."""
    pytest.importorskip("faiss")
    plain, generator = vectors(3000), np.random.default_rng(0)
    fine, coarse = (product_quantisation(plain, size)(plain[:200], generator) for size in (6, 3))
    cosines = [(unit_rows(one)[0] * plain[:200]).sum(axis=1).mean() for one in (fine, coarse)]
    assert 0.8 < cosines[0] < 0.999 and cosines[0] > cosines[1] + 0.02
    assert len(np.unique(coarse[:, :8], axis=0)) <= 256


def test_product_quantisation_is_left_out_where_it_cannot_be_learned(monkeypatch):
    """A store that is too small, or a missing library, ended the whole audit."""
    pytest.importorskip("faiss")
    tried, left_out = defences(("pq", "int8"), vectors(100), 0)
    assert [one.name for one in tried] == ["int8"] and "2,560" in left_out["product quantisation"]
    assert "pieces of 8" in defences(("pq",), vectors(2600, 20), 0).left_out["product quantisation"]
    assert len(defences(("pq",), vectors(2600, 16), 0).tried) == 2
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    assert "embinv[faiss]" in defences(("pq",), vectors(2600, 16), 0).left_out["product quantisation"]


def test_families_of_the_command():
    """A mistyped defence was left out, and the report looked complete."""
    assert parse_families("all") == FAMILIES and parse_families("int8, noise") == ("int8", "noise")
    stored = vectors(100)
    assert {one.family for one in defences(("noise", "rotation"), stored, 0).tried} == {"noise", "rotation"}
    tried, left_out = defences(FAMILIES, stored, 0)
    assert {one.family for one in tried} == set(FAMILIES) - {"pq"} and list(left_out) == ["product quantisation"]
    with pytest.raises(EmbInvError, match="nosie"):
        parse_families("nosie")


def test_the_labelled_set_is_whole():
    """A line without its tab, or a query that stands in its own passage, makes search look perfect."""
    queries, passages = labelled_texts()
    assert len(queries) == len(passages) == len(set(queries)) == 300
    assert all(query not in passage and len(passage) >= 100 for query, passage in zip(queries, passages, strict=True))


def test_labelled_search_of_constructed_vectors():
    """Passages must be defended and queries treated as their own side is: a rotation of one alone spoils search."""
    passages, generator = vectors(40), np.random.default_rng(0)
    labelled, turn = LabelledSet(passages, passages), rotation(WIDTH, 1)
    both = Defence("turned", "rotation", lambda rows, _: rows @ turn, lambda rows: rows @ turn)
    assert labelled.utility(both, generator) == (1, 1)
    one_side = Defence("turned", "rotation", lambda rows, _: rows @ turn)
    assert labelled.utility(one_side, generator).recall < 0.6
    second = LabelledSet(np.roll(passages, 1, axis=0) + 0.6 * passages, passages)
    assert second.utility(both, generator).ndcg == pytest.approx(1 / np.log2(3), abs=0.05)


def test_a_value_at_a_recall_lies_between_its_neighbours():
    """Beyond the noise that was tried nothing is known, and nothing may be claimed."""
    points = [(1.0, 0.6), (0.5, 0.2), (0.9, 0.5)]
    assert at_recall(0.95, points) == pytest.approx(0.55) and at_recall(0.5, points) == pytest.approx(0.2)
    assert at_recall(0.4, points) is None and at_recall(0.4, []) is None


def result(name, family, recall, cosine=1.0, **words) -> DefenceResult:
    attacks = {who.replace("_", "-"): Figure(share, share - 0.05, share + 0.05, 1, 2) for who, share in words.items()}
    return DefenceResult(name, family, Utility(recall, recall), None, attacks, cosine, None)


def test_advice_follows_the_strongest_attacker():
    """A defence that hides nothing is not praised for keeping search whole, nor one that a few pairs undo."""
    found = judged(
        [
            result("none", "none", 1.0, released=0.6), result("noise 0.02", "noise", 0.9, released=0.3, adapted=0.4),
            result("noise 0.05", "noise", 0.5, released=0.0, adapted=0.1), result("int8", "int8", 0.99, released=0.58),
            result("secret rotation", "rotation", 1.0, released=0.0, adapted=0.61),
            result("binary", "binary", 0.7, released=0.0, adapted=0.1, re_trained=0.05),
        ]
    )  # fmt: skip
    by_name = {one.name: one for one in found}
    assert [one.utility.recall for one in found] == [1.0, 1.0, 0.99, 0.9, 0.7, 0.5]
    assert by_name["secret rotation"].advice.startswith("Does not help against who knows pairs")
    assert by_name["secret rotation"].strongest == "adapted" and by_name["secret rotation"].words.value == 0.61
    assert by_name["int8"].advice.startswith("Does not help.")
    assert by_name["noise 0.02"].advice.startswith("Helps a little")
    assert "spoils search" in by_name["binary"].advice and "spoils search" in by_name["noise 0.05"].advice
    assert by_name["binary"].noise_words == pytest.approx(0.25) and by_name["noise 0.02"].noise_words is None
    alone = judged([result("none", "none", 1.0, released=0.6), result("secret rotation", "rotation", 1.0, released=0)])
    assert "pairs" in alone[1].advice
    better = judged([result("none", "none", 1.0, released=0.6), result("x", "noise", 0.9, released=0.0, adapted=0.1)])
    assert better[1].advice.startswith("Helps against the attackers")


def test_noise_at_the_same_search_quality_is_told_in_words():
    """A share of the words that come back is not the share that is hidden."""
    results = [result("none", "none", 1.0, released=0.6), result("noise 1", "noise", 0.5, released=0.2)]
    (sentence,) = matched(judged([*results, result("binary", "binary", 0.75, released=0.3)]))
    assert "recall@10 0.75), noise hides 33 %" in sentence and "binary hides 50 %" in sentence


def test_copies_of_a_vector_are_searched_once():
    """Of 20 copies any ten are right hits, and half of them counted as lost under the least noise."""
    plain, generator = vectors(60, 384), np.random.default_rng(0)
    copies = np.repeat(plain, 20, axis=0) * generator.uniform(1, 3, (1200, 1))
    copies += 1e-7 * generator.standard_normal(copies.shape)  # as batches of other widths leave them
    stored = Sample(copies.astype(np.float32), np.arange(1200), None, None, 1200, "")
    found = distinct(stored)
    assert found.shape == plain.shape and np.allclose(found, plain, atol=1e-5)
    own = np.arange(60)
    noised = unit_rows(noise(0.01)(found, generator))[0]
    assert utility(nearest(found, found, own), nearest(found, noised, own)).recall > 0.8
    near = Sample(plain + 0.005 * generator.standard_normal(plain.shape), np.arange(60), None, None, 60, "")
    assert len(distinct(near)) == 60
    with pytest.raises(EmbInvError, match="more than 10 .* 10"):
        distinct(stored.take(np.arange(200)))


def test_rows_without_words_are_not_attacked():
    """Where most texts are empty, rows without a word were drawn, and the audit ended in a KeyError."""
    assert told_rows(sample_of(["", "It is.", "My dog", ""])).tolist() == [2]
    assert not len(told_rows(sample_of([])._replace(texts=None)))
