"""A surrogate of the encoder inside the inverter's checkpoint: nobody needs the encoder to check what was written."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .diffusion_embinv import text_positions


class Surrogate(nn.Module):
    """f̂: ids → about the encoder's vectors.

    The inverter's trunk reads the text: its matrices with low-rank changes (arXiv 2106.09685), its norms under one
    modulation for all texts. The positions' mean goes through a linear layer. The trunk's own weights stay as they
    are, so a surrogate costs a few hundred kilobytes and changes nothing in what the inverter writes.
    """

    def __init__(self, config, trunk: nn.Module):
        super().__init__()
        self.end_token_id = config.eos_token_id
        self.modulation = nn.Parameter(torch.zeros(trunk.num_norms, 2, config.hidden_size))
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for name in _matrices(trunk):
            weight = trunk.get_parameter(name)
            self.down.append(torch.empty(config.surrogate_rank, weight.shape[1]))
            self.up.append(torch.zeros(weight.shape[0], config.surrogate_rank))
        self.dense = nn.Linear(config.hidden_size, config.embedding_dim)

    def forward(self, trunk: nn.Module, ids: Tensor) -> Tensor:
        """Canvas rows (N, L), ends behind the text → unit vectors (N, D) float32."""
        text = text_positions(ids, self.end_token_id)
        width = int(text.sum(dim=1).max())
        ids, text = ids[:, :width], text[:, :width]
        weights = {name: weight.detach() for name, weight in trunk.named_parameters()}
        for name, up, down in zip(_matrices(trunk), self.up, self.down, strict=True):
            weights[name] = weights[name] + up @ down
        modulation = self.modulation.expand(len(ids), -1, -1, -1)
        hidden = functional_call(trunk, weights, (trunk.token_embeddings(ids).detach(), modulation, text.long()))
        mean = (hidden * text[..., None]).sum(dim=1) / text.sum(dim=1, keepdim=True)
        return nn.functional.normalize(self.dense(mean).float(), dim=-1)


def _matrices(trunk: nn.Module) -> list[str]:
    """The names of the weight matrices of the trunk's layers."""
    own = {id(weight) for weight in trunk.layers.parameters() if weight.ndim == 2}
    return [name for name, weight in trunk.named_parameters() if id(weight) in own]
