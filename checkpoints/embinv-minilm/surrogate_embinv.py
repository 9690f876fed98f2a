"""A surrogate of the encoder inside the inverter's checkpoint: nobody needs the encoder to check what was written."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import initialization as init

from .configuration_embinv import EmbInvConfig
from .diffusion_embinv import text_positions
from .errors_embinv import EmbInvError
from .inputs_embinv import check_ids
from .inputs_embinv import warn_of_rows
from .linear_embinv import Linear
from .trunk_embinv import Trunk

# texts that the surrogate embeds at a time: few of them stay in a CPU's caches and have about one length, which halves
# the time of 1,024 texts of 8 to 30 tokens; a GPU wants more work at once
EMBEDDED_ROWS, EMBEDDED_ROWS_CPU = 1024, 64


class Surrogate(nn.Module):
    """f̂: ids → about the encoder's vectors.

    The inverter's trunk reads a start and the text: its matrices with low-rank changes (arXiv 2106.09685), its norms
    and biases with changes of their own. The positions' mean goes through a linear layer. The trunk's own weights
    stay as they are, so a surrogate is small and changes nothing in what the inverter writes. Encoders attend to their
    first token a lot, and the inverter's texts have none: without the start, no weights reach such an encoder.

    From a rank of H on, the changes are whole matrices, the tables of positions and token types have some, too, and
    the token embeddings go through a linear map, to which a table of the surrogate's own may be added. Where the
    encoder's layers have the shape of the trunk's, such a surrogate is the encoder but for its token embeddings; with
    a table it is the encoder. It may have fewer layers than the trunk.
    """

    def __init__(self, config: EmbInvConfig, trunk: Trunk) -> None:
        super().__init__()
        self.end_token_id = config.eos_token_id
        self.depth = config.surrogate_layers or len(trunk.layers)
        trunk = trunk.first_layers(self.depth)
        self.num_norms = trunk.num_norms
        self.start = nn.Parameter(torch.zeros(config.hidden_size))  # stands for the embedding of a first token
        self.shifts = nn.ParameterList(torch.zeros_like(trunk.get_parameter(name)) for name in _vectors(trunk))
        self.down, self.up, self.whole = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        is_whole = config.surrogate_rank >= config.hidden_size
        self.tokens = nn.Linear(config.hidden_size, config.hidden_size) if is_whole else None
        self.table = nn.Embedding(config.vocab_size, config.hidden_size) if config.surrogate_table else None
        for name in _tables(trunk) + _matrices(trunk) if is_whole else []:
            self.whole.append(torch.zeros_like(trunk.get_parameter(name)))
        for name in [] if is_whole else _matrices(trunk):
            weight = trunk.get_parameter(name)
            self.down.append(torch.empty(config.surrogate_rank, weight.shape[1]))
            self.up.append(torch.zeros(weight.shape[0], config.surrogate_rank))
        self.dense = nn.Linear(config.hidden_size, config.embedding_dim)
        self._merged: tuple[Trunk, ...] = ()  # within a tuple it is not saved with the weights

    def initialize(self, std: float) -> None:
        """The trunk as it is: an encoder's own trunk starts as that encoder."""
        tables = [] if self.table is None else [self.table.weight]
        for zero in (self.start, *self.shifts.parameters(), *tables):
            init.zeros_(zero)
        for down, up in zip(self.down, self.up, strict=True):
            init.normal_(down, std=down.shape[1] ** -0.5)
            init.zeros_(up)
        for own_map in (self.dense,) if self.tokens is None else (self.dense, self.tokens):
            init.eye_(own_map.weight)
            init.zeros_(own_map.bias)

    def reader(self, trunk: Trunk) -> Callable[..., Tensor]:
        """The trunk's forward pass with the changes as they are now, put together once for many calls."""
        is_float = self.start.is_cpu and self.start.dtype == torch.float32  # as what `merge` made
        if self._merged and is_float and not torch.is_grad_enabled():
            return self._merged[0]
        short = trunk.first_layers(self.depth)
        weights = self._weights(short)
        if self.training and torch.is_grad_enabled():  # a training run has the trunk to itself, and may compile it
            return lambda *inputs: functional_call(short, weights, inputs)
        return _with_weights(short, weights)

    def forward(self, trunk: Trunk, ids: Tensor, read: Callable[..., Tensor]) -> Tensor:
        """Canvas rows (N, L), ends behind the text → unit vectors (N, D) float32; `read` is the `reader`."""
        text = text_positions(ids, self.end_token_id)
        width = int(text.sum(dim=1).max())
        ids, text = ids[:, :width], text[:, :width]
        tokens = self._mapped(trunk.token_embeddings(ids).detach())
        tokens = tokens if self.table is None else tokens + self.table(ids)
        tokens = torch.cat([self.start.expand(len(ids), 1, -1), tokens], dim=1)
        text = nn.functional.pad(text, (1, 0), value=True)
        inputs = tokens, tokens.new_zeros(len(ids), self.num_norms, 2, tokens.shape[-1]), text.long()
        hidden = read(*inputs)
        mean = (hidden * text[..., None]).sum(dim=1) / text.sum(dim=1, keepdim=True)
        return nn.functional.normalize(self.dense(mean).float(), dim=-1)

    def merge(self, trunk: Trunk) -> Trunk:
        """A copy of the trunk that holds the changes, which reads texts from now on where no gradient is wanted."""
        trunk = trunk.first_layers(self.depth)
        tokens = trunk.token_embeddings  # of no use in the copy, which is given their vectors
        merged = copy.deepcopy(trunk, {id(tokens): tokens})
        weights = self._weights(trunk)
        with torch.no_grad():
            for name in self.changes(trunk):
                merged.get_parameter(name).copy_(weights[name])
        self._merged = (merged,)
        return merged

    @torch.no_grad()
    def approach(self, trunk: Trunk, weights: dict[str, Tensor]) -> bool:
        """Start as near to an encoder's `weights` as this rank allows, if there is one of every name and shape.

        Returns:
            Whether the layers and the table of positions are the encoder's own now.
        """
        trunk = trunk.first_layers(self.depth)
        own = {name: trunk.get_parameter(name) for name in self.changes(trunk)}
        if any(name not in weights or weights[name].shape != weight.shape for name, weight in own.items()):
            return False
        if self.table is not None and trunk.embedding_name in weights:
            self._take_table(trunk, weights[trunk.embedding_name])
        for name, change in self.changes(trunk).items():
            wanted = weights[name].to(own[name]) - own[name]
            if isinstance(change, Tensor):
                change.copy_(wanted)
                continue
            up, down = change
            left, size, right = torch.linalg.svd(wanted, full_matrices=False)
            rank, root = min(len(down), len(size)), size.sqrt()
            up[:, :rank].copy_((left * root)[:, :rank])
            down[:rank].copy_((root[:, None] * right)[:rank])
        return len(self.whole) > 0

    @torch.no_grad()
    def fit_tokens(self, trunk: Trunk, table: Tensor, counts: Tensor) -> None:
        """Map the trunk's token embeddings onto an encoder's `table` (V, H), by least squares.

        Training moves all embeddings in common directions, which a linear map takes back.

        Args:
            counts: (V,) how often each token occurs in texts; every one counts for a twentieth more.
        """
        if self.tokens is None:
            return
        weights = (counts + 0.05).sqrt()[:, None].to(table)
        own = nn.functional.pad(trunk.token_embeddings.weight.to(table), (0, 1), value=1.0)
        fitted = torch.linalg.lstsq(own * weights, table * weights).solution
        self.tokens.weight.copy_(fitted[:-1].T)
        self.tokens.bias.copy_(fitted[-1])
        if self.table is not None:
            self._take_table(trunk, table)

    def changes(self, trunk: Trunk) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """What is added to the weights of a trunk of its depth, by name: a tensor, or the two factors of a product."""
        whole = zip(_tables(trunk) + _matrices(trunk), self.whole, strict=True) if len(self.whole) else ()
        products = zip(_matrices(trunk), zip(self.up, self.down, strict=True), strict=True) if len(self.up) else ()
        return {**dict(whole), **dict(products), **dict(zip(_vectors(trunk), self.shifts, strict=True))}

    def _mapped(self, tokens: Tensor) -> Tensor:
        """The trunk's token embeddings (…, H) as near to an encoder's as a linear map brings them."""
        return tokens if self.tokens is None else self.tokens(tokens)

    def _take_table(self, trunk: Trunk, table: Tensor) -> None:
        """Keep what the linear map leaves of an encoder's `table` (V, H), where there is room for it."""
        assert self.table is not None
        if table.shape == self.table.weight.shape:
            own = self._mapped(trunk.token_embeddings.weight.detach())
            self.table.weight.copy_(table.to(own) - own)

    def _weights(self, trunk: Trunk) -> dict[str, Tensor]:
        """The trunk's weights with the changes, by name; gradients reach the changes only."""
        weights = {name: weight.detach() for name, weight in trunk.named_parameters()}
        for name, change in self.changes(trunk).items():
            weights[name] = weights[name] + (change if isinstance(change, Tensor) else change[0] @ change[1])
        return weights


class SurrogateMixin:
    """Gives a model its surrogate, and `embed`."""

    # of the model that this goes into
    config: EmbInvConfig
    device: Any
    dtype: Any
    generation_config: Any
    get_input_embeddings: Any
    surrogate: Surrogate | None
    trunk: Trunk
    _init_weights: Any

    def add_surrogate(
        self,
        rank: int,
        first_token_id: int | None = None,
        weights: dict[str, Tensor] | None = None,
        has_table: bool = False,
        length: int | None = None,
    ) -> None:
        """Give the model a surrogate encoder, untrained; one of that rank and that kind stays as it is.

        Args:
            first_token_id: what the encoder reads before a text.
            weights: the encoder's, by the library's names. Where they fit the trunk, or its first layers alone, the
                surrogate has so many, and starts as near to them as its rank allows; else it starts as the trunk.
            has_table: whether a table of its own is added to the mapped token embeddings.
            length: tokens of the longest texts that the encoder embeds. A surrogate of its own layers and positions
                judges texts of this length, whatever it is trained on; another one judges what the canvas holds.
        """
        if (self.config.surrogate_rank, self.config.surrogate_table) != (rank, has_table):
            self.config.surrogate_rank, self.config.surrogate_table = rank, has_table
            self.config.surrogate_layers = fitting_layers(self.trunk, weights or {})
            self.surrogate = Surrogate(self.config, self.trunk).to(self.device, self.dtype)
            self.surrogate.apply(self._init_weights)
            if first_token_id is not None:
                own = self.get_input_embeddings().weight
                table = (weights or {}).get(self.trunk.embedding_name, own) if has_table else own
                self.surrogate.start.data.copy_((table if table.shape == own.shape else own)[first_token_id])
            is_encoder = self.surrogate.approach(self.trunk, weights or {})
            self.config.surrogate_length = length if is_encoder else None

    def drop_surrogate(self) -> None:
        """Take the surrogate encoder away, as when the weights have changed that it shares with the trunk."""
        self.config.surrogate_rank, self.surrogate = 0, None
        self.config.surrogate_layers, self.config.surrogate_length, self.config.surrogate_table = None, None, False

    def embed(self, ids: Any) -> Tensor:
        """About the encoder's vectors (N, D) of texts, ids (N, L) with ends behind them, by the surrogate.

        The ids have no start token: of a tokenizer that writes one, take `input_ids[:, 1:]`. Gradients flow to the
        surrogate's weights, for which the states of all texts stay in memory; within `torch.no_grad()` they do not.

        On a CPU, oneDNN keeps 2 MB for each new number of rows and tokens, up to 1,024 matrix products; no tensor
        stays. LRU_CACHE_CAPACITY=1 and ONEDNN_PRIMITIVE_CACHE_CAPACITY=1 in the environment keep nothing.

        Raises:
            EmbInvError: for a model without a surrogate, for what is no ids (N, L) of its vocabulary, and for a text
                longer than its table of positions.
        """
        embed = self.embedder()
        rows = check_ids(ids, None, self.config.vocab_size)
        warn_of_rows(rows, "ids", self.config, self.generation_config.suppress_tokens)
        room = self.trunk.num_positions
        longest = int(text_positions(rows, self.config.eos_token_id).sum(dim=1).max()) if len(rows) else 0
        if room is not None and longest >= room:  # the start has a position, too
            raise EmbInvError(f"ids must be texts of at most {room - 1} tokens with their end, got one of {longest}.")
        return embed(rows.to(self.device))

    def embedder(self) -> Callable[[Tensor], Tensor]:
        """`embed` for many calls, with the weights that the surrogate has now.

        Raises:
            EmbInvError: for a model without a surrogate.
        """
        if self.surrogate is None:
            raise EmbInvError("this model has no surrogate encoder; give the encoder itself as feedback.")
        return partial(self._embed, self.surrogate, self.surrogate.reader(self.trunk))

    def _embed(self, surrogate: Surrogate, read: Callable[..., Tensor], ids: Tensor) -> Tensor:
        if not len(ids):
            return torch.zeros(0, self.config.embedding_dim, device=ids.device)
        order = text_positions(ids, self.config.eos_token_id).sum(dim=1).argsort(stable=True)
        vectors = [
            surrogate(self.trunk, ids[part], read)
            for part in order.split(EMBEDDED_ROWS_CPU if ids.is_cpu else EMBEDDED_ROWS)
        ]
        return torch.cat(vectors)[order.argsort()]


def fitting_layers(trunk: Trunk, weights: dict[str, Tensor]) -> int | None:
    """How many of the trunk's first layers an encoder's `weights` fill, where it has no more; None for all."""
    shapes = {name: weight.shape for name, weight in weights.items()}
    depths = range(1, len(trunk.layers) + 1)
    known = sum(_fits(trunk.first_layers(depth), shapes) for depth in depths)
    return known if 0 < known < len(trunk.layers) else None


def _fits(trunk: Trunk, shapes: dict[str, torch.Size]) -> bool:
    """Whether an encoder has a matrix of every name and shape of a trunk's layers."""
    return all(shapes.get(name) == trunk.get_parameter(name).shape for name in _matrices(trunk))


def _with_weights(trunk: Trunk, weights: dict[str, Tensor]) -> Trunk:
    """A copy of a trunk with other weights, by name; other threads may use the trunk at the same time."""
    kept = {id(part): part for part in (trunk.config, *trunk.parameters())}
    rounded = (layer for layer in trunk.modules() if isinstance(layer, Linear) and type(layer) is not Linear)
    plain = {id(layer): Linear.sharing(layer) for layer in rounded}  # else they would round their weights again
    copied = copy.deepcopy(trunk, {**kept, **plain})
    for name, weight in weights.items():
        owner, _, last = name.rpartition(".")
        # no parameter: gradients flow on to the changes
        copied.get_submodule(owner)._parameters[last] = weight  # type: ignore[assignment]
    return copied


def _matrices(trunk: Trunk) -> list[str]:
    """The names of the weight matrices of the trunk's layers."""
    own = {id(weight) for weight in trunk.layers.parameters() if weight.ndim == 2}
    return [name for name, weight in trunk.named_parameters() if id(weight) in own]


def _vectors(trunk: Trunk) -> list[str]:
    """The names of the trunk's norms and biases."""
    return [name for name, weight in trunk.named_parameters() if weight.ndim == 1]


def _tables(trunk: Trunk) -> list[str]:
    """The names of the trunk's tables of positions and token types, where it has any."""
    tokens = id(trunk.token_embeddings.weight)
    layers = {id(weight) for weight in trunk.layers.parameters()}
    return [
        name
        for name, weight in trunk.named_parameters()
        if weight.ndim == 2 and id(weight) not in layers and id(weight) != tokens
    ]
