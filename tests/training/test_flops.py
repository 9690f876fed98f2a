"""The operations that a log's share of the matrix products is counted by."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from modeling_embinv.training.distillation import Distillation
from modeling_embinv.training.flops import operation_counter
from tests.tiny_models import END, VOCAB, awaken, tiny_model


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_surrogates_operations_are_those_that_pytorch_counts(family, layers):
    """All layers of the trunk were counted where the surrogate has half of them: more than the device can do."""
    eager = dict(attn_implementation="eager")  # PyTorch counts no fused attention on a CPU
    model, encoder = awaken(tiny_model(family, **eager)), awaken(tiny_model(family, seed=1)).trunk.first_layers(layers)
    model.add_surrogate(model.config.hidden_size, 7, dict(encoder.named_parameters()))
    assert model.surrogate.depth == layers
    model.train().requires_grad_(False).surrogate.requires_grad_(True)
    device = SimpleNamespace(autocast=nullcontext, device=torch.device("cpu"))
    run = SimpleNamespace(bare_model=model, noise=SimpleNamespace(end=END), accelerator=device, flops=0.0)
    ids = torch.randint(END + 1, VOCAB, (50, 12))
    with operation_counter() as counter:
        Distillation.embedded(run, ids).sum().backward()
    assert run.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
