"""A surrogate that stays the encoder it is while the trunk beside it trains."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..modeling_embinv import EmbInvForMaskedDiffusion

_TABLE, _MAP = "surrogate.table.weight", ("surrogate.tokens.weight", "surrogate.tokens.bias")


def trunk_trains(model: EmbInvForMaskedDiffusion) -> bool:
    """Whether any weight of the trunk trains, its token embeddings among them."""
    return any(weight.requires_grad for weight in model.trunk.parameters())


def can_be_kept(model: EmbInvForMaskedDiffusion) -> bool:
    """Whether a model's surrogate can stay what it is when the trunk's weights become others.

    Each weight of the trunk that it reads with must have a change of the same shape: a low-rank one cannot take back
    what training does. Where the token embeddings train, it needs a table of its own as well.
    """
    surrogate = model.surrogate
    if surrogate is None or not len(surrogate.whole):
        return False
    return surrogate.table is not None or not model.get_input_embeddings().weight.requires_grad


def kept_surrogate(model: EmbInvForMaskedDiffusion) -> "KeptSurrogate | None":
    """What is to be kept of a model that is about to train; None where no surrogate is, or no trunk trains."""
    return KeptSurrogate(model) if trunk_trains(model) and can_be_kept(model) else None


class KeptSurrogate:
    """The weights that a surrogate reads with, whatever becomes of the trunk's.

    A surrogate is stored as changes of the trunk's weights. Its changes are taken anew beside each trunk, so that
    both together are what they were: it embeds as before, to rounding.

    Args:
        model: an inverter whose surrogate `can_be_kept`, before its trunk changes.
    """

    def __init__(self, model: EmbInvForMaskedDiffusion) -> None:
        surrogate = model.surrogate
        assert surrogate is not None
        trunk = model.trunk.first_layers(surrogate.depth)
        names = {id(weight): name for name, weight in model.named_parameters()}
        self.embeddings = f"trunk.{model.trunk.embedding_name}"
        # by the name of the change: that of the trunk's weight, and the sum of both
        self.sums: dict[str, tuple[str, Tensor]] = {}
        for name, change in surrogate.changes(trunk).items():
            assert isinstance(change, Tensor)  # no product, as it can be kept
            own = trunk.get_parameter(name)
            self.sums[names[id(change)]] = names[id(own)], (own + change).detach()
        self.tokens: Tensor | None = None
        if surrogate.table is not None:
            assert surrogate.tokens is not None
            mapped = surrogate.tokens(model.get_input_embeddings().weight)
            self.tokens = (mapped + surrogate.table.weight).detach()

    @property
    def names(self) -> list[str]:
        """Of the changes, as `state_dict` names them."""
        return [*self.sums, *([] if self.tokens is None else [_TABLE])]

    def changes(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The surrogate's changes beside the trunk of a state, by their names in it.

        Args:
            state: whole weights of the inverter, as `state_dict` names them.
        """
        found = {name: whole - state[own].to(whole) for name, (own, whole) in self.sums.items()}
        if self.tokens is not None:
            parts = (state[name].to(self.tokens) for name in (self.embeddings, *_MAP))
            found[_TABLE] = self.tokens - nn.functional.linear(*parts)
        return found

    def restore(self, model: EmbInvForMaskedDiffusion) -> None:
        """Give a model's surrogate its changes beside the model's own trunk."""
        model.load_state_dict(self.changes(model.state_dict()), strict=False)
