"""What all models of this package have in common: loading, saving, and how new weights start."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding

from .configuration_embinv import EmbInvConfig
from .integrity_embinv import CheckedLoading


class EmbInvPreTrainedModel(CheckedLoading, PreTrainedModel):
    """Loading, saving and initialisation."""

    config_class = EmbInvConfig
    base_model_prefix = "embinv"
    main_input_name = "noised_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if (initialize := getattr(module, "initialize", None)) is not None:  # a module of this package
            initialize(std)
        elif isinstance(module, ModernBertRotaryEmbedding):
            # not saved with the weights, so loading must compute them again
            for kind in module.layer_types:
                inv_freq, _ = module.compute_default_rope_parameters(module.config, layer_type=kind)
                init.copy_(getattr(module, f"{kind}_inv_freq"), inv_freq)
                init.copy_(getattr(module, f"{kind}_original_inv_freq"), inv_freq)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
