"""Products by oneDNN: the same numbers, and nobody is handed them who needs the other library's."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from modeling_embinv import linear_embinv
from modeling_embinv.linear_embinv import Linear, linear, use_linear
from modeling_embinv.training.flops import operation_counter
from tests.tiny_models import texts, tiny_model, unit_vectors


@pytest.fixture(params=[True, False], ids=["onednn", "pytorch"])
def by_onednn(request, monkeypatch) -> bool:
    """Whatever machine the test runs on."""
    monkeypatch.setattr(linear_embinv, "PREFERS_ONEDNN", request.param)
    return request.param


def operators(call) -> list[str]:
    with torch.profiler.profile(acc_events=True) as profile:
        call()
    return [event.key for event in profile.key_averages()]


@torch.no_grad()
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8), (0, 8)], ids=str)
def test_the_product_is_that_of_pytorch(by_onednn, shape):
    """A transposed weight, a lost bias, or a slice read as if it were whole."""
    wide, bias, inputs = torch.randn(5, 12), torch.randn(5), torch.randn(shape)
    for weight in (wide[:, :8].contiguous(), wide[:, :8], wide[:, 4:], torch.randn(8, 5).T):
        for b in (bias, None):
            torch.testing.assert_close(linear(inputs, weight, b), F.linear(inputs, weight, b))


@torch.no_grad()
def test_the_faster_library_computes(by_onednn):
    """A condition that is never met leaves the slow library at work, and nobody would notice."""
    layer, inputs = Linear(8, 5), torch.randn(3, 8)
    assert ("mkldnn::_linear_pointwise" in operators(lambda: layer(inputs))) == by_onednn


@torch.no_grad()
def test_slices_are_left_to_pytorch(by_onednn):
    """oneDNN computes with a slice of a matrix by its reference kernel: right, and a thousand times slower."""
    weight, inputs = torch.randn(5, 12), torch.randn(3, 8)
    assert "mkldnn::_linear_pointwise" not in operators(lambda: linear(inputs, weight[:, :8]))


def test_gradients_flow(by_onednn):
    """oneDNN's operator has no gradient: training through it would leave every weight where it was."""
    layer, inputs = Linear(8, 5), torch.randn(3, 8, requires_grad=True)
    layer(inputs).square().sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in (inputs, layer.weight, layer.bias))


@torch.no_grad()
def test_other_precisions_are_left_to_pytorch(by_onednn):
    """Autocast, or weights of another precision, must not be undone, nor fail."""
    layer, inputs = Linear(8, 5), torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16
    assert layer.bfloat16()(inputs.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_other_weights_are_seen_at_once(by_onednn):
    """A copy of the weights that is kept for speed would go on with the old ones."""
    layer, inputs = Linear(8, 5), torch.randn(3, 8)
    other = {"weight": torch.randn(5, 8), "bias": torch.randn(5)}
    torch.testing.assert_close(functional_call(layer, other, inputs), F.linear(inputs, *other.values()))
    layer.weight.data += 1
    torch.testing.assert_close(layer(inputs), F.linear(inputs, layer.weight, layer.bias))


def test_only_plain_layers_change():
    """A layer with a forward pass of its own that is made a plain one loses it."""

    class Doubled(torch.nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), Doubled(4, 4))
    names = model.state_dict().keys()
    weight, held_elsewhere = model[0].weight, model[0]
    use_linear(model)
    assert [type(module) for module in model] == [Linear, Doubled] and model.state_dict().keys() == names
    assert model[0].weight is weight and type(held_elsewhere) is torch.nn.Linear


def test_a_model_computes_the_same_by_either(family, monkeypatch):
    """Every layer that goes by the other library, the loss's own product among them; counted alike."""
    model, vectors, ids = tiny_model(family, num_condition_tokens=1), unit_vectors(3), texts(3)
    found = []
    for chosen in (True, False):
        monkeypatch.setattr(linear_embinv, "PREFERS_ONEDNN", chosen)
        with torch.no_grad(), operation_counter() as counter:
            logits = model(ids, vectors, torch.rand(3, generator=torch.Generator().manual_seed(0))).logits
        loss = model(ids, vectors, torch.ones(3), targets=ids.flatten()).loss
        loss.backward()
        found.append((logits, loss, model.decoder.weight.grad.clone(), counter.get_total_flops()))
        model.zero_grad()
    for one, other in zip(*(row[:3] for row in found), strict=True):
        torch.testing.assert_close(one, other)
    assert found[0][3] == found[1][3] > 0
