"""Tiny models, their texts and vectors, and toy encoders, shared by the tests."""

import torch

from modeling_embinv import EmbInvConfig, EmbInvForMaskedDiffusion
from tests.conftest import BACKBONES

VOCAB, MASK, END, PAD = 60, 3, 2, 0

_SIZES = dict(
    vocab_size=VOCAB, hidden_size=32, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40
)
_NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def tiny_config(family: str = "bert", **overrides) -> EmbInvConfig:
    backbone = {**_SIZES, **BACKBONES[family]}
    if family != "modernbert":
        backbone |= _NO_DROPOUT
    settings = dict(
        backbone_config=backbone, embedding_dim=16, max_sequence_length=12, vocab_size=VOCAB, mask_token_id=MASK,
        eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    return EmbInvConfig(**{**settings, **overrides})


def with_vocabulary(size: int) -> dict:
    """Arguments of `tiny_model` for a vocabulary of another size."""
    return {"vocab_size": size, "backbone_config": {**_SIZES, **_NO_DROPOUT, **BACKBONES["bert"], "vocab_size": size}}


def tiny_model(family: str = "bert", seed: int = 0, **overrides) -> EmbInvForMaskedDiffusion:
    torch.manual_seed(seed)
    return EmbInvForMaskedDiffusion(tiny_config(family, **overrides)).eval()


def awaken(model: EmbInvForMaskedDiffusion, seed: int = 0) -> EmbInvForMaskedDiffusion:
    """Weights as large as trained ones, also where they start at zero, so that t, e and positions matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.trunk.layers.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(5)
        weight = model.modulation.weight
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1 / model.modulation.scale)
    return model


def causal_model(family: str = "bert", **overrides) -> EmbInvForMaskedDiffusion:
    """An inverter that knows both orders, awake."""
    model = awaken(tiny_model(family, **{"num_condition_tokens": 2, "causal_share": 0.5, **overrides}))
    model.get_input_embeddings().weight.data.mul_(10)  # surer of its tokens, so that texts differ
    return model


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def texts(rows: int, length: int = 12) -> torch.Tensor:
    """Random texts of every length up to the canvas, then end tokens; the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, VOCAB, (rows, length), generator=generator)
    sizes = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return ids.masked_fill(torch.arange(length) >= sizes, END)


def bag_of_tokens(calls: list[int]):
    """An encoder that sums a vector for each token, and counts."""
    table = unit_vectors(VOCAB, seed=5)

    def encode(ids):
        calls.append(len(ids))
        return torch.nn.functional.normalize((table[ids] * (ids != END)[..., None]).sum(dim=1), dim=-1)

    return encode


def with_surrogate(family: str = "bert", **overrides):
    """A model whose surrogate has left its start, where its changes of the trunk are zero."""
    model = awaken(tiny_model(family, surrogate_rank=4, **overrides))
    for weight in (*model.surrogate.up, model.surrogate.start, *model.surrogate.shifts):
        torch.nn.init.normal_(weight, std=0.3)
    return model
