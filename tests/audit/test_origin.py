"""Whose vectors these are, in words."""

import re

import numpy as np
import pytest
import torch

from modeling_embinv.audit.fingerprint import best, encoder_origin, origin
from modeling_embinv.audit.public import public_sentences
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.configuration_embinv import EmbInvConfig


@pytest.fixture(scope="module")
def config():
    return EmbInvConfig.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def own(encoder) -> np.ndarray:
    return encoder.encode(list(public_sentences()[:120])).numpy()


def test_own_vectors_fit_in_whatever_length(config, own):
    """Scaled and int8 vectors of the right encoder can be inverted: a note, no mismatch."""
    assert origin("m", config, own).looks_like is None
    for changed in (3 * own, np.rint(own * 400)):
        found = origin("m", config, changed)
        assert found.looks_like is None and found.notes


@pytest.mark.parametrize(
    "kind, words",
    [
        ("random", "random numbers"), ("rotated", "another encoder"), ("permuted", "another encoder"),
        ("signs", "signs"), ("noised", "strong noise"), ("narrow", "first 192"), ("copies", "copies of one vector"),
    ],
)  # fmt: skip
def test_strangers_are_named(config, own, kind, words):
    """The words "another encoder" for everything leaves the user alone with the question why."""
    generator = np.random.default_rng(0)
    changed = {
        "random": lambda: generator.standard_normal(own.shape),
        "rotated": lambda: own @ np.linalg.qr(generator.standard_normal((384, 384)))[0],
        "permuted": lambda: own[:, generator.permutation(384)],
        "signs": lambda: np.sign(own),
        "noised": lambda: own + 0.1 * generator.standard_normal(own.shape),
        "narrow": lambda: own[:, :192],
        "copies": lambda: np.tile(generator.standard_normal(384), (len(own), 1)),  # numpy's warning was shown
    }[kind]()
    found = origin("m", config, changed.astype(np.float32))
    assert found.looks_like and words in found.looks_like and "all-MiniLM-L6-v2" in str(found)
    assert found.has_width == (kind != "narrow")


@pytest.mark.parametrize("kind", ["first token", "word vectors"])
def test_real_vectors_of_another_encoder_do_not_fit(config, encoder, kind):
    """Only random and turned vectors were told apart; these are of real texts, by the same network used otherwise."""
    model = encoder._model
    tokens = model.tokenizer(list(public_sentences()[:120]), padding=True, return_tensors="pt")
    mask = tokens["attention_mask"]
    with torch.no_grad():
        layers = model[0].auto_model(tokens["input_ids"], mask, output_hidden_states=True).hidden_states
    mean = (layers[0] * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    vectors = {"first token": layers[-1][:, 0], "word vectors": mean}[kind].numpy()
    for some in (vectors, vectors[:40]):
        assert "another encoder of 384 numbers" in origin("m", config, some).looks_like


LETTERS = ("Invoice {} was paid.", "Das Lager in Halle {} ist voll.", "The patient in bed {} has a fever.")


@pytest.mark.parametrize("letters", [LETTERS, LETTERS[:1], ("one text, again and again",)])
def test_form_letters_fit(config, encoder, letters):
    """A store of one form letter varies in few directions, and was taken for another encoder's."""
    vectors = encoder.encode([letters[n % len(letters)].format(n) for n in range(60)]).numpy()
    assert origin("m", config, vectors).looks_like is None


def test_cut_and_centred_vectors_are_noted(config, own):
    """They fit by their variances, and come back worse: the reader should know why."""
    cut = own * (np.arange(384) < 192)
    assert any("first 192" in note for note in origin("m", config, cut).notes)
    assert any("centred" in note for note in origin("m", config, own - own.mean(axis=0)).notes)
    assert not any("centred" in note for note in origin("m", config, own).notes)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_part_from_another_encoder_is_noted(config, own, share):
    """A store with 30 % of another encoder's vectors fitted without a note, and its own texts were not found."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0].astype(np.float32)
    mixed, count = own.copy(), int(share * len(own))
    mixed[:count] = own[:count] @ turn
    for found in (origin("m", config, mixed), encoder_origin("e", own, mixed)):
        assert found.looks_like is None
        (note,) = [note for note in found.notes if "of the rows do not look like" in note]
        percent = int(re.search(r"(\d+) % of the rows", note).group(1))
        assert 60 * share < percent <= 100 * share and "figures are of all rows" in note


def test_a_few_odd_rows_are_no_note(config, own):
    """A note for one text in a hundred that is only odd would be read by nobody."""
    odd = own.copy()
    odd[:2] = np.random.default_rng(0).standard_normal((2, 384))
    for some in (own, odd):
        assert not any("of the rows" in note for note in origin("m", config, some).notes)


def test_the_checkpoint_that_fits_is_chosen(config, own):
    """Of several checkpoints, the order on the command line decided."""
    other = EmbInvConfig(**{**config.to_dict(), "embedding_dim": 512, "encoder_fingerprint": None})
    origins = [origin("other", other, own), origin("right", config, own)]
    assert best(origins).model == "right" and best(origins[:1]).model == "other"
