"""Edits of the search, and that it keeps what it found."""

import pytest
import torch

from modeling_embinv.closed_loop import random_edits, search

from .conftest import END, MASK, VOCAB, awaken, tiny_model, unit_vectors


def texts(rows: int, length: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, VOCAB, (rows, length), generator=generator)
    sizes = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return ids.masked_fill(torch.arange(length) >= sizes, END)


def test_edits_leave_a_text():
    """An end token in the middle, or a text that is nothing but its end, would be cut to nothing."""
    ids = texts(2000)
    edited = random_edits(ids, MASK, END, torch.Generator().manual_seed(1))
    before, after = (ids != END).sum(dim=1), (edited != END).sum(dim=1)
    assert (edited[:, 1:][edited[:, :-1] == END] == END).all()  # behind an end stands the end
    assert (after >= 1).all() and ((after - before).abs() <= 1).all()
    assert {-1, 0, 1} <= set((after - before).tolist())
    moved = (edited != ids).any(dim=1) & (edited != MASK).all(dim=1) & (after == before)
    assert moved.sum() > 100  # swaps keep every token
    assert torch.equal(edited[moved].sort(dim=1).values, ids[moved].sort(dim=1).values)


def test_known_tokens_of_a_draft_stay():
    """Who knows a word of the text must get it back in its place."""
    model, vectors = awaken(tiny_model()), unit_vectors(3)
    draft = torch.full((3, 12), MASK)
    draft[:, 1] = torch.tensor([7, 8, 9])
    output = model.generate(vectors, draft_ids=draft, num_steps=4)
    kept = output.sequences[:, 1]
    assert all(token in (known, 0) for token, known in zip(kept.tolist(), [7, 8, 9], strict=True))
    assert (output.sequences != MASK).all()
    with pytest.raises(ValueError, match="draft_ids must have shape"):
        model.generate(vectors, draft_ids=draft[:, :5])


def test_rounds_never_lose_and_calls_are_counted():
    """A beam that forgets its best text, or a cost report that leaves encoder calls out."""
    model, vectors = awaken(tiny_model()), unit_vectors(4)
    table = unit_vectors(VOCAB, seed=5)
    calls = []

    def encode(ids):
        calls.append(len(ids))
        return torch.nn.functional.normalize((table[ids] * (ids != END)[..., None]).sum(dim=1), dim=-1)

    found = []
    for rounds in (0, 3, 12):
        calls.clear()
        output = search(
            model, vectors, encode, num_candidates=4, num_rounds=rounds, beam=2, proposals=4, likelihood_weight=0.0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert sum(calls) == 4 * output.encoder_calls
        found.append(output.cosine)
    assert (found[1] >= found[0] - 1e-6).all() and (found[2] >= found[1] - 1e-6).all()
    assert found[2].mean() > found[0].mean() + 0.05
