"""Embedding many texts: the vectors are those of one call, and how far it is can be seen."""

import numpy as np
import pytest

from modeling_embinv.audit import embedding
from modeling_embinv.progress import bar


def lengths(texts: list[str]) -> np.ndarray:
    """A stand-in for an encoder: one number, a text's length."""
    assert isinstance(texts, list)
    return np.array([[len(text)] for text in texts], dtype=float).reshape(-1, 1)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_parts_make_the_whole(monkeypatch, count):
    """The last part, or no text at all, was lost."""
    monkeypatch.setattr(embedding, "STEP", 2)
    texts = ["a" * size for size in range(1, count + 1)]
    found = embedding.embedded(lengths, texts)
    assert found.dtype == np.float32 and found.shape == (count, 1)
    assert found[:, 0].tolist() == list(range(1, count + 1))


def test_many_guesses_say_how_far_they_are(monkeypatch, capsys):
    """A list of a hundred thousand guesses was embedded for half an hour without a word."""
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(embedding, "STEP", 60)
    for texts, show, lines in ((["a"] * 120, True, 2), (["a"] * 99, True, 0), (["a"] * 120, False, 0)):
        embedding.embedded(lengths, texts, show)
        shown = capsys.readouterr().err.splitlines()
        assert len(shown) == lines and all("of 120 texts" in line for line in shown)
