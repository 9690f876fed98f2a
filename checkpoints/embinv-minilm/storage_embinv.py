"""Weights in a quarter of their bytes: rows of 8-bit numbers on disk, floating point once they are loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# a row of a matrix has so many steps on either side of 0; the last one is its largest weight
STEPS = 127
# a matrix of fewer rows keeps 16 bits: a table of two token types is added to every token, and its bytes are few
FEWEST_ROWS = 8
PEAKS = "row_peaks"


def matrix_names(model: Any) -> list[str]:
    """The names of a model's matrices; a tied one, which loading ties later, has that of its source."""
    tied, weights = model._tied_weights_keys, model.named_parameters()
    large = [name for name, weight in weights if weight.ndim == 2 and len(weight) >= FEWEST_ROWS]
    return [name for name in large if name not in tied]


def add_peaks(model: Any) -> None:
    """Gives a model room for the largest weight of each row of its matrices, as a checkpoint in 8 bits holds them."""
    rows = sum(model.get_parameter(name).shape[0] for name in matrix_names(model))
    model.register_buffer(PEAKS, torch.ones(rows))


@torch.no_grad()
def expand(model: Any) -> None:
    """Turns the loaded steps of each row into weights, in place; from then on the model is like any other."""
    peaks, first = model.get_buffer(PEAKS), 0
    for name in matrix_names(model):
        weight = model.get_parameter(name)
        weight.mul_(peaks[first : first + len(weight), None].to(weight) / STEPS)
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
        state[name] = (weight / peak.float()[:, None] * STEPS).round().clamp(-STEPS, STEPS).to(torch.int8)
        peaks.append(peak)
    state[PEAKS] = torch.cat(peaks)
    add_peaks(model)
    model.config.weight_bits = 8
    try:
        yield state
    finally:
        delattr(model, PEAKS)
        model.config.weight_bits = None
