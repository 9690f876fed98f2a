"""The surrogate's stage: what it starts from."""

import pytest
import torch
from datasets import Dataset

from modeling_embinv.data.batches import PairBatches
from modeling_embinv.training.distillation import start_from_table
from tests.tiny_models import END, VOCAB, awaken, texts, tiny_model


@pytest.mark.parametrize("has_table", [False, True])
def test_the_surrogate_starts_from_the_tokens_of_the_texts(has_table):
    """A start that counts no texts fits tokens that occur nowhere; one that is made again forgets what was learned."""
    model, encoder = awaken(tiny_model()), awaken(tiny_model(seed=1)).trunk
    own, table = model.get_input_embeddings().weight, encoder.token_embeddings.weight
    weights = dict(encoder.named_parameters())
    ids = texts(300)
    used = torch.bincount(ids.flatten(), minlength=VOCAB) > 0
    used[END] = True
    with torch.no_grad():
        own.copy_(table + 0.3 * table.roll(1, dims=1) - 0.1)
        own[~used] += 5 * torch.randn_like(own[~used])
    vectors = torch.zeros(len(ids), 16).half()
    batches = PairBatches(Dataset.from_dict({"input_ids": ids.numpy(), "embedding": vectors.numpy()}), END, seed=0)
    model.add_surrogate(model.config.hidden_size, 7, weights, has_table)
    start_from_table(model, batches, 32, weights, first_token_id=7)
    if has_table:  # what the map leaves, of tokens that occur nowhere as well
        assert torch.allclose(model.surrogate.tokens(own) + model.surrogate.table.weight, table, atol=1e-4)
    error = (model.surrogate.tokens(own) - table)[used].abs().mean()
    assert error < 0.05 * (own - table)[used].abs().mean()
    assert torch.equal(model.surrogate.start, table[7])
    with torch.no_grad():
        model.surrogate.tokens.weight.mul_(0.5)  # as training would
    learned = model.surrogate.tokens.weight.clone()
    start_from_table(model, batches, 32, weights, first_token_id=7)
    assert torch.equal(model.surrogate.tokens.weight, learned)


def test_an_encoder_of_other_tokens_changes_nothing():
    """Row by row of another vocabulary, the map would join words that have nothing to do with each other."""
    model = awaken(tiny_model())
    model.add_surrogate(model.config.hidden_size, 7)
    start = model.surrogate.start.clone()
    tokens = model.get_input_embeddings().weight
    name = next(name for name, weight in model.trunk.named_parameters() if weight is tokens)
    for weights in ({}, {name: torch.randn(VOCAB + 1, model.config.hidden_size)}):
        start_from_table(model, None, 32, weights, first_token_id=7)
        assert torch.equal(model.surrogate.tokens.weight, torch.eye(model.config.hidden_size))
        assert torch.equal(model.surrogate.start, start)
