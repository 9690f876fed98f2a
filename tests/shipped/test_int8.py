"""Matrix products in int8: how far they may be off, whom they must not touch, and when they must not be used."""

import copy
import pickle

import pytest
import torch
from torch import multiprocessing
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from modeling_embinv import int8_embinv
from modeling_embinv.cli.demo import DEMO_SENTENCES
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.int8_embinv import WEIGHT_STEPS, BFloat16Linear, Int8Linear
from modeling_embinv.linear_embinv import Linear
from modeling_embinv.loading import load_inverter
from tests.tiny_models import awaken, texts, unit_vectors, with_surrogate


def layer(seed: int = 0) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(48, 20)


@torch.no_grad()
def test_the_error_is_that_of_rounding():
    """Scales that are off, a forgotten bias or zero point are wrong by far more than half a step of each factor."""
    linear, inputs = layer(), torch.randn(3, 7, 48) * torch.rand(3, 7, 1)
    packed = Int8Linear(linear)
    weight_step = linear.weight.abs().amax(dim=1) / WEIGHT_STEPS
    input_step = (inputs.max().clamp_min(0) - inputs.min().clamp_max(0)) / 255
    # |xw − x'w'| ≤ |x| Δw + |w| Δx + Δx Δw, summed over the inputs; Δ is half a step, or one at the rim
    bound = inputs.abs().sum(dim=-1, keepdim=True) * weight_step / 2
    bound = bound + linear.weight.abs().sum(dim=1) * input_step + 48 * input_step * weight_step
    error = (packed(inputs) - linear(inputs)).abs()
    assert packed(inputs).shape == (3, 7, 20) and (error <= bound).all()
    assert error.max() > 0, "nothing was rounded"
    assert error.mean() < 0.02 * linear(inputs).std()


@torch.no_grad()
def test_every_output_channel_has_its_own_scale():
    """One scale for the whole matrix rounds small channels to nothing beside a large one."""
    linear, inputs = layer(), torch.randn(16, 48)
    linear.weight[0] *= 1000
    error = (Int8Linear(linear)(inputs) - linear(inputs)).abs()[:, 1:]
    assert error.mean() < 0.02 * linear(inputs)[:, 1:].std()


@torch.no_grad()
def test_large_inputs_leave_the_others_their_steps():
    """One channel of an encoder that is far larger than the others would round these to nothing."""
    linear, inputs = layer(), torch.randn(64, 48)
    inputs[:, 3] *= 50
    plain, smooth = Int8Linear(linear), Int8Linear(linear, inputs.abs().amax(dim=0))
    errors = [(packed(inputs) - linear(inputs)).abs().mean() for packed in (plain, smooth)]
    assert 0 < errors[1] < errors[0] / 2
    unseen = Int8Linear(linear, torch.zeros(48))  # channels that nothing was seen of are divided by something
    assert unseen(inputs).isfinite().all() and (unseen(inputs) - linear(inputs)).abs().mean() < 2 * errors[0]


@torch.no_grad()
def test_bfloat16_rounds_each_factor_once():
    """Sums in bfloat16, too, lose what a text differs by from its neighbour."""
    linear, inputs = layer(), torch.randn(3, 7, 48)
    found, rounded = BFloat16Linear(linear)(inputs), 2.0**-8  # half a step of eight bits of a number
    bound = inputs.abs() @ linear.weight.abs().T * 2.1 * rounded + (linear(inputs).abs() + linear.bias.abs()) * rounded
    error = (found - linear(inputs)).abs()
    assert found.dtype == torch.float32 and found.shape == (3, 7, 20) and (error <= bound).all()
    assert 0 < error.mean() < 0.004 * linear(inputs).std()


@torch.no_grad()
def test_an_activation_in_bfloat16_changes_nothing():
    """An output that is rounded before its activation as well as behind it is another network's."""
    wide, narrow = layer(), torch.nn.Linear(20, 48)
    rounded, inputs = BFloat16Linear(narrow), torch.randn(5, 48)
    kept = BFloat16Linear(wide, torch.bfloat16)(inputs)
    found = rounded(torch.nn.functional.gelu(kept))
    assert kept.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert torch.equal(found, rounded(torch.nn.functional.gelu(BFloat16Linear(wide)(inputs))))
    narrow.weight += 1  # not rounded anew: it multiplies in float32
    assert torch.equal(rounded(kept), narrow(kept.float()))


@pytest.mark.parametrize("activation, stays", [("gelu", True), ("gelu_new", False)])
def test_an_activation_of_several_steps_is_computed_in_float32(activation, stays, monkeypatch):
    """In bfloat16 each of its steps would round."""
    monkeypatch.setattr(int8_embinv, "HAS_BFLOAT16", True)
    model, inputs, product = with_surrogate(), set(), BFloat16Linear._product
    model.trunk.config.hidden_act = activation
    monkeypatch.setattr(
        BFloat16Linear,
        "_product",
        lambda layer, given, rounded: inputs.add(given.dtype) or product(layer, given, rounded),
    )
    with torch.no_grad():
        model.to_int8().embed(texts(4))
    assert torch.float32 in inputs and (torch.bfloat16 in inputs) == stays


@pytest.mark.parametrize("kind", [Int8Linear, BFloat16Linear])
def test_whoever_needs_the_float_weights_gets_them(kind):
    """Rounded weights that outlive a training step, or stand in for others', give answers of another network."""
    linear = Linear.sharing(layer())  # which multiplies by the same library
    packed, inputs = kind(linear), torch.randn(5, 48)
    assert packed.weight is linear.weight and packed.state_dict().keys() == linear.state_dict().keys()
    assert torch.equal(packed(inputs), linear(inputs)), "no gradient flows through int8"
    with torch.no_grad():
        assert not torch.equal(packed(inputs), linear(inputs))
        other = {"weight": linear.weight * 2, "bias": linear.bias}
        assert torch.equal(functional_call(packed, other, inputs), functional_call(linear, other, inputs))
        assert packed(inputs[:0]).shape == (0, 20)
        linear.weight += 1
        assert torch.equal(packed(inputs), linear(inputs))


@torch.no_grad()
@pytest.mark.parametrize("kind", [Int8Linear, BFloat16Linear])
def test_a_bias_of_its_own_is_seen(kind):
    """Biases may be trained or exchanged without the weights: the layer went on with those that it was packed with."""
    linear, inputs = Linear.sharing(layer()), torch.randn(5, 48)
    packed, other = kind(linear), {"bias": linear.bias * 2}
    assert torch.equal(functional_call(packed, other, inputs), functional_call(linear, other, inputs))
    packed.bias += 1
    assert torch.equal(packed(inputs), linear(inputs))


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_a_model_reads_the_same_in_int8(family, has_bfloat16, monkeypatch):
    """A layer packed with another one's weights, or one that lost its bias, turns text into noise."""
    monkeypatch.setattr(int8_embinv, "HAS_BFLOAT16", has_bfloat16)
    monkeypatch.setattr(int8_embinv, "HAS_VNNI", True)
    model, vectors, ids = with_surrogate(family), unit_vectors(32), texts(16)
    packed = copy.deepcopy(model).to_int8()
    assert sum(isinstance(module, Int8Linear) for module in packed.modules()) > 8
    timestep = torch.rand(16)
    with torch.no_grad():
        logits, close = (m(ids, vectors[:16], timestep).logits for m in (model, packed))
        assert 0.999 < torch.cosine_similarity(logits, close, dim=-1).mean() < 1 - 1e-7
        similarity = torch.cosine_similarity(model.embed(ids), packed.embed(ids))
        losses = packed(ids, vectors[:16], timestep, targets=ids.flatten()).losses
    assert 0.999 < similarity.mean() < 1 - 1e-7
    # a search's likelihoods took the float output layer, and six times as long
    assert torch.allclose(losses, cross_entropy(close.flatten(0, 1), ids.flatten(), reduction="none"), atol=1e-5)
    loop = packed.generate(vectors[:2], num_candidates=2, num_corrections=1, num_proposals=8, feedback="surrogate")
    assert loop.cosine.shape == (2,)


def test_the_released_checkpoint_writes_the_same_words(encoder):
    """Rounding that spoils what the checkpoint has learned would go unseen on random weights, which know nothing."""
    model, _ = load_inverter(str(CHECKPOINT))
    vectors = encoder.encode(list(DEMO_SENTENCES))
    written = model.eval().generate(vectors).sequences
    assert (model.to_int8().generate(vectors).sequences == written).float().mean() > 0.85


@pytest.mark.parametrize("has_bfloat16, most", [(True, 1e-4), (False, 0.002)])
def test_the_released_surrogate_embeds_the_same(has_bfloat16, most, monkeypatch):
    """A judge that rounds too much: in int8 alone it loses 0.004 of a cosine, more than a wrong word does."""
    monkeypatch.setattr(int8_embinv, "HAS_BFLOAT16", has_bfloat16)
    monkeypatch.setattr(int8_embinv, "HAS_VNNI", True)
    model, tokenizer = load_inverter(str(CHECKPOINT))
    rows = tokenizer(list(DEMO_SENTENCES), padding="max_length", max_length=32, return_tensors="pt").input_ids[:, 1:]
    rows = rows.masked_fill(rows == tokenizer.pad_token_id, model.config.eos_token_id)
    before = torch.get_rng_state()
    with torch.no_grad():
        vectors, rounded = model.eval().embed(rows), model.to_int8().embed(rows)
    assert 0 < 1 - torch.cosine_similarity(vectors, rounded, dim=-1).mean() < most
    assert torch.equal(torch.get_rng_state(), before), "packing a model changes what is sampled after it"


def test_without_vnni_the_surrogate_stays_in_float32(monkeypatch):
    """Rounded more coarsely there, it judged so badly that `fill --int8` took four times as long as float32."""
    monkeypatch.setattr(int8_embinv, "HAS_BFLOAT16", False)
    monkeypatch.setattr(int8_embinv, "HAS_VNNI", False)
    model, ids = with_surrogate(), texts(16)
    packed = copy.deepcopy(model).to_int8()
    assert torch.equal(packed.embed(ids), model.embed(ids))
    assert any(isinstance(module, Int8Linear) for module in packed.trunk.modules())


def test_saving_training_and_packing_again(tmp_path):
    """Packed weights within a checkpoint, or a tie that breaks, make a folder that no other version can load."""
    model, vectors, ids = with_surrogate(), unit_vectors(4), texts(4)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    packed = copy.deepcopy(model).to_int8()
    assert packed.decoder.weight is packed.get_input_embeddings().weight
    assert packed.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in packed.state_dict().items())
    packed.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.generate(vectors).sequences, model.generate(vectors).sequences)
    timestep = torch.ones(4)
    packed(ids, vectors, timestep).logits.square().mean().backward()
    queries = [layer.attention.self.query for layer in packed.trunk.layers]
    assert all(layer.weight.grad.abs().sum() > 0 for layer in queries)
    with torch.no_grad():
        changed = type(model).from_pretrained(tmp_path).eval()
        for weight in (*packed.parameters(), *changed.parameters()):
            weight.add_(0.01)
        assert torch.allclose(packed(ids, vectors, timestep).logits, changed(ids, vectors, timestep).logits, atol=1e-5)
        packed.to_int8()
        assert not torch.equal(packed(ids, vectors, timestep).logits, changed(ids, vectors, timestep).logits)
        assert torch.cosine_similarity(packed.embed(ids), changed.embed(ids)).min() > 0.99


def answers(model) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Logits, the surrogate's vectors, and whether the output layer is tied; int8 as float layers differ in both."""
    with torch.no_grad():
        logits = model(texts(4), unit_vectors(4), torch.ones(4)).logits
        return logits, model.embed(texts(4)), model.decoder.weight is model.get_input_embeddings().weight


def save_answers(_, model, path):
    torch.save(answers(model), path)


def sent(model, folder) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """What a model answers in a spawned process."""
    multiprocessing.spawn(save_answers, (model, folder / "answers.pt"))
    return torch.load(folder / "answers.pt")


def pickled(model, _) -> tuple[torch.Tensor, torch.Tensor, bool]:
    return answers(pickle.loads(pickle.dumps(model)))


def copied(model, _) -> tuple[torch.Tensor, torch.Tensor, bool]:
    return answers(copy.deepcopy(model))


@pytest.mark.parametrize("send", [sent, pickled, copied])
def test_a_model_in_int8_travels(send, tmp_path, monkeypatch):
    """PyTorch cannot send packed weights to a spawned process, and a copy fell back to float without a word."""
    monkeypatch.setattr(int8_embinv, "HAS_VNNI", True)  # else the surrogate is in float32
    model = with_surrogate()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.01)  # no longer the first version of the weight
    *plain, _ = answers(model)
    *packed, _ = answers(model.to_int8())
    *arrived, tied = send(model, tmp_path)
    assert tied and all(torch.equal(one, other) for one, other in zip(packed, arrived, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(packed, plain, strict=True))


def test_layers_that_were_changed_arrive_as_they_are():
    """Packed again on arrival, a layer that computed in float for its changed weights would round them."""
    packed, inputs = Int8Linear(layer()), torch.randn(5, 48)
    with torch.no_grad():
        packed.weight += 1
        assert torch.equal(copy.deepcopy(packed)(inputs), packed(inputs))


@pytest.mark.parametrize("kind", [Int8Linear, BFloat16Linear])
def test_weights_that_were_exchanged_are_seen(kind):
    """Averaged weights that take the place of the trained ones for a while: the layer went on with the old ones."""
    linear, other, inputs = Linear.sharing(layer()), Linear.sharing(layer(1)), torch.randn(5, 48)
    packed = kind(linear)
    with torch.no_grad():
        rounded, own = packed(inputs), packed.weight.data
        packed.weight.data = other.weight.data
        assert torch.equal(packed(inputs), linear(inputs)) and packed.weight is linear.weight
        packed.weight.data = own
        assert torch.equal(packed(inputs), rounded), "the layer's own weights are back"
        packed.bfloat16().float()  # within the memory that was free, as it may be
        assert torch.equal(packed(inputs), linear(inputs))
        assert not torch.equal(packed(inputs), rounded)


def test_a_model_that_shares_its_memory_stays_in_int8():
    """Weights that move to where other processes see them are the same: in float they took twice the time."""
    model = with_surrogate().to_int8()
    before = answers(model)[:2]
    model.share_memory()
    assert all(torch.equal(one, other) for one, other in zip(before, answers(model)[:2], strict=True))


def search_and_embed(model) -> list[torch.Tensor]:
    """The texts that a search finds, and the surrogate's vectors."""
    search = dict(num_candidates=2, num_corrections=1, num_proposals=4, feedback="surrogate")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return [model.generate(unit_vectors(2), generator=generator, **search).sequences, model.embed(texts(4))]


@pytest.mark.parametrize("has_bfloat16", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.double], ids=str)
def test_another_precision_ends_int8(dtype, has_bfloat16, monkeypatch):
    """Kernels for float32 that were handed other numbers failed in PyTorch, in the middle of a search."""
    monkeypatch.setattr(int8_embinv, "HAS_BFLOAT16", has_bfloat16)
    monkeypatch.setattr(int8_embinv, "HAS_VNNI", True)
    packed, plain = with_surrogate().to_int8().to(dtype), with_surrogate().to(dtype)
    for found, expected in zip(*(search_and_embed(model) for model in (packed, plain)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_autocast_reaches_a_model_in_int8(has_bfloat16, monkeypatch):
    """An input that autocast had made bfloat16 failed in the kernel for float32, and it rounded a packed surrogate."""
    monkeypatch.setattr(int8_embinv, "HAS_BFLOAT16", has_bfloat16)
    monkeypatch.setattr(int8_embinv, "HAS_VNNI", True)
    model, outside = with_surrogate(), with_surrogate().to_int8()
    with torch.autocast("cpu", torch.bfloat16):
        model.to_int8()
        assert model.generate(unit_vectors(2), num_candidates=2, feedback="surrogate").cosine.shape == (2,)
        logits, vectors, _ = answers(model)
    assert all(torch.equal(one, other) for one, other in zip(answers(model)[:2], answers(outside)[:2], strict=True))
    for found, expected in zip((logits, vectors), answers(outside)[:2], strict=True):
        assert torch.cosine_similarity(found.float(), expected, dim=-1).min() > 0.99


def test_inference_mode_is_no_obstacle():
    """Weights that were made in it have no version to compare, and packing them failed."""
    outside = with_surrogate().to_int8()
    expected = answers(outside)[:2]
    with torch.inference_mode():
        inside, moved = with_surrogate().to_int8(), with_surrogate()
        found = answers(inside)[:2]
    with torch.inference_mode():
        moved.to_int8()
        outside.bfloat16()
        assert answers(outside)[0].dtype == torch.bfloat16
    for one in (found, answers(inside)[:2], answers(moved)[:2]):
        assert all(torch.equal(*pair) for pair in zip(one, expected, strict=True))


def test_other_precisions_are_refused():
    """int8 kernels of the CPU that are handed bfloat16 fail in the middle of a long run."""
    with pytest.raises(ValueError, match="float32 models on the CPU, this one is torch.bfloat16 on cpu"):
        awaken(with_surrogate()).bfloat16().to_int8()
