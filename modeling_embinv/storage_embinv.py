"""Weights in a quarter of their bytes: rows of 8-bit numbers on disk, floating point once they are loaded.

A surrogate's table holds what a linear map leaves of an encoder's token embeddings, a fourth of their length: it takes
4 bits, two numbers in a byte.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

# a row of a matrix has so many steps on either side of 0; the last one is its largest weight
STEPS, TABLE_STEPS = 127, 7
# a matrix of fewer rows keeps 16 bits: a table of two token types is added to every token, and its bytes are few
FEWEST_ROWS = 8
PEAKS = "row_peaks"
_loads = ContextVar("loads", default=False)


@contextmanager
def loading() -> Iterator[None]:
    """While a checkpoint is loaded: models made in it have the layout that their configuration says."""
    token = _loads.set(True)
    try:
        yield
    finally:
        _loads.reset(token)


def as_built(config: Any) -> Any:
    """The configuration of a model that is being made: a new one holds floats, whatever a checkpoint's did."""
    if config.weight_bits and not _loads.get():
        config = copy.deepcopy(config)  # the caller may yet load the checkpoint with it
        config.weight_bits = None
    return config


def matrix_names(model: Any) -> list[str]:
    """The names of a model's matrices; a tied one, which loading ties later, has that of its source."""
    tied, weights = model._tied_weights_keys, model.named_parameters()
    large = [name for name, weight in weights if weight.ndim == 2 and len(weight) >= FEWEST_ROWS]
    return [name for name in large if name not in tied]


def add_peaks(model: Any) -> None:
    """Gives a model room for the largest weight of each row of its matrices, as a checkpoint in 8 bits holds them."""
    rows = sum(model.get_parameter(name).shape[0] for name in matrix_names(model))
    model.register_buffer(PEAKS, torch.ones(rows))


def halve_table(model: Any) -> None:
    """Makes a surrogate's table as narrow as its bytes in a checkpoint in 8 bits, which are loaded into it."""
    if (table := _table(model)) is not None:
        table.weight = nn.Parameter(table.weight.detach()[:, ::2].clone())


@torch.no_grad()
def expand(model: Any) -> None:
    """Turns the loaded steps of each row into weights, in place; from then on the model is like any other."""
    peaks, first, table = model.get_buffer(PEAKS), 0, _table(model)
    if table is not None:
        table.weight = nn.Parameter(_unpacked(table.weight), requires_grad=table.weight.requires_grad)
    for name in matrix_names(model):
        weight = model.get_parameter(name)
        weight.mul_(peaks[first : first + len(weight), None].to(weight) / _steps(name))
        first += len(weight)
    delattr(model, PEAKS)
    model.config.weight_bits = None


@contextmanager
def compressed(model: Any) -> Iterator[dict[str, Tensor]]:
    """The tensors of a model as a checkpoint in 8 bits holds them, while its configuration says so."""
    tied = model._tied_weights_keys
    state = {name: weight.half() for name, weight in model.state_dict().items() if name not in tied}
    peaks = []
    for name in matrix_names(model):
        weight = model.get_parameter(name).detach().float()
        peak = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float16).tiny).half()
        steps = _steps(name)
        rounded = (weight / peak.float()[:, None] * steps).round().clamp(-steps, steps)
        state[name] = (_packed(rounded) if steps == TABLE_STEPS else rounded).to(torch.int8)
        peaks.append(peak)
    state[PEAKS] = torch.cat(peaks)
    add_peaks(model)
    model.config.weight_bits = 8
    try:
        yield state
    finally:
        delattr(model, PEAKS)
        model.config.weight_bits = None


def _table(model: Any) -> nn.Embedding | None:
    """The table of a model's surrogate."""
    return None if model.surrogate is None else model.surrogate.table


def _steps(name: str) -> int:
    return TABLE_STEPS if name == "surrogate.table.weight" else STEPS


def _packed(numbers: Tensor) -> Tensor:
    """(V, H) whole numbers of −7 to 7 → (V, H / 2) of −119 to 119: 16 · an even column + the next one."""
    return 16 * numbers[:, ::2] + numbers[:, 1::2]


def _unpacked(packed: Tensor) -> Tensor:
    """The inverse of `_packed`."""
    high = ((packed + 8) / 16).floor()
    return torch.stack([high, packed - 16 * high], dim=2).flatten(1)
