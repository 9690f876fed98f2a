"""The fair peer: a left-to-right decoder of the inverter's trunk, conditioned on the vector by a prefix."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertLMHeadModel

from modeling_embinv.conditioning_embinv import ConditionProjector
from modeling_embinv.diffusion_embinv import text_positions
from modeling_embinv.linear_embinv import use_linear


class AutoregressiveInverter(nn.Module):
    """BERT layers with a causal mask and the library's KV cache; starts from the same pretrained weights as ours.

    Args:
        decoder: a `BertLMHeadModel` with `is_decoder`.
        config: the inverter's `EmbInvConfig`: widths, tokens and canvas length.
        prefix: positions that are projected from the vector.
    """

    def __init__(self, decoder: BertLMHeadModel, config, prefix: int = 4):
        super().__init__()
        self.decoder, self.config, self.prefix = decoder, config, prefix
        self.projector = ConditionProjector(config)
        self.tokens = nn.Linear(config.hidden_size, prefix * config.hidden_size)
        for dense in (self.projector.dense_in, self.projector.dense_out, self.tokens):
            nn.init.normal_(dense.weight, std=dense.in_features**-0.5)
            nn.init.zeros_(dense.bias)
        # as large as the tokens' embeddings, or the first norm would see nothing else
        with torch.no_grad():
            self.tokens.weight.mul_(self.get_input_embeddings().weight.std())
        use_linear(self)  # as ours does

    @classmethod
    def from_encoder(cls, folder: str, config, prefix: int = 4) -> "AutoregressiveInverter":
        """Layers and token embeddings of the encoder in `folder`; the output transform starts at random, as ours."""
        settings = BertConfig.from_pretrained(
            folder, is_decoder=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        decoder = BertLMHeadModel.from_pretrained(folder, config=settings, dtype=torch.float32)
        return cls(decoder, config, prefix)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.decoder.get_input_embeddings()

    def prefix_of(self, embedding: Tensor) -> Tensor:
        """e (B, D) → (B, P, H)."""
        return self.tokens(self.projector(embedding)).unflatten(1, (self.prefix, -1))

    def loss(self, ids: Tensor, embedding: Tensor) -> Tensor:
        """Mean −log p of the tokens of texts (B, L) and their first end token; the output layer sees only these."""
        seen = torch.cat([self.prefix_of(embedding), self.get_input_embeddings()(ids[:, :-1])], dim=1)
        hidden = self.decoder.bert(inputs_embeds=seen, use_cache=False).last_hidden_state
        hidden = hidden[:, self.prefix - 1 :]  # (B, L, H)
        scored = text_positions(ids, self.config.eos_token_id).flatten()
        logits = self.decoder.cls(hidden.flatten(0, 1)[scored])
        return F.cross_entropy(logits.float(), ids.flatten()[scored])

    @torch.no_grad()
    def generate(self, embeddings: Tensor, num_beams: int = 1, num_texts: int = 1) -> Tensor:
        """Vectors (B, D) → ids (B · num_texts, L), ends behind the text, by `generate` with its KV cache."""
        end, length = self.config.eos_token_id, self.config.max_sequence_length
        prefix = self.prefix_of(embeddings)
        ids = self.decoder.generate(
            inputs_embeds=prefix, attention_mask=prefix.new_ones(prefix.shape[:2]), num_beams=num_beams,
            num_return_sequences=num_texts, do_sample=False, use_cache=True, min_new_tokens=1, max_new_tokens=length,
            eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        return F.pad(ids, (0, length - ids.shape[1]), value=end)
