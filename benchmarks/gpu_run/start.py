"""The inverter that a GPU run begins with."""

from typing import Any

import torch
from transformers import BertConfig, BertModel

from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.training.backbone import load_backbone
from modeling_embinv.training.config import TrainingConfig

from .encoder import PackedEncoder


def new_model(config: TrainingConfig, encoder: PackedEncoder, vocabulary: Any) -> EmbInvForMaskedDiffusion:
    """An inverter whose trunk starts as the encoder's; a deeper one repeats its stack of layers (arXiv 2405.15319)."""
    torch.manual_seed(config.seed)
    about = encoder.about
    backbone = BertConfig(**about["backbone"])
    own, depth = backbone.num_hidden_layers, config.num_hidden_layers or backbone.num_hidden_layers
    backbone.num_hidden_layers = depth
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = 0.0
    model = EmbInvForMaskedDiffusion(EmbInvConfig(
        backbone_config=backbone, embedding_dim=backbone.hidden_size, vocab_size=backbone.vocab_size,
        max_sequence_length=config.max_sequence_length, canvas_lengths=config.canvas_lengths,
        num_condition_tokens=config.num_condition_tokens, causal_share=config.causal_share,
        correction_share=config.correction_share,
        noise_schedule=config.noise_schedule, noise_lambda=config.noise_lambda,
        mask_token_id=vocabulary.mask, eos_token_id=vocabulary.end, pad_token_id=vocabulary.pad,
        encoder_id=about["id"], encoder_revision=about["revision"], encoder_prompt=about["prompt"],
    ))  # fmt: skip
    source, weights = BertModel(backbone, add_pooling_layer=False), encoder.network.state_dict()
    for layer in range(own, depth):
        begin = f"encoder.layer.{layer % own}."
        weights |= {
            name.replace(begin, f"encoder.layer.{layer}.", 1): weight
            for name, weight in encoder.network.state_dict().items()
            if name.startswith(begin)
        }
    source.load_state_dict({name: weights[name] for name in source.state_dict()})
    load_backbone(model, source)
    return model
