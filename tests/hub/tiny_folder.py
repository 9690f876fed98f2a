"""A tiny inverter with a real tokenizer, as it lies in a folder of the Hub."""

import torch

from modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from tests.tiny_models import awaken

TRUNK = dict(
    model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=40,
)  # fmt: skip


def new_tiny_inverter(tokenizer, seed: int = 0, **sizes) -> EmbInvForMaskedDiffusion:
    """An inverter of 16 numbers a vector, with weights as large as trained ones.

    Args:
        tokenizer: an encoder's, without the changes that an inverter's own needs.
    """
    torch.manual_seed(seed)
    sizes = {"encoder_id": "a/b", "embedding_dim": 16, "max_sequence_length": 12, **sizes}
    return awaken(new_inverter(prepare_tokenizer(tokenizer), TRUNK, **sizes)).eval()
