"""The benchmarks count what they say they count, and run."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import throughput
from benchmarks.throughput import BareProducts, Product, measure, parse, products_of, record

from .conftest import VOCAB, tiny_model, unit_vectors

TINY = dict(
    model_type="bert", vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=40, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip


def training_pass(model):
    ids = torch.randint(4, VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(0, 36, 2)
    output = model(ids, unit_vectors(3), torch.tensor([0.1, 0.5, 0.9]), positions=positions, targets=ids.view(-1)[::2])
    output.loss.backward()


def inversion(model):
    model.generate(unit_vectors(2), num_steps=3)


def operations(call, model) -> int:
    return sum(product.flops for product in record(lambda: call(model)))


@pytest.mark.parametrize("call", [training_pass, inversion])
def test_counts_as_pytorch_counts(call, family):
    """A product that is missed, the in-place one of the loss say, makes the limit too low and the share a lie."""
    model = tiny_model(family, num_condition_tokens=1, attn_implementation="eager")
    # PyTorch's table lacks the in-place product
    in_place = {torch.ops.aten.addmm_: lambda _, left, right, **kwargs: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        call(model)
    assert operations(call, model) == counter.get_total_flops() > 0


@pytest.mark.parametrize("call", [training_pass, inversion])
def test_fused_attention_counts_as_its_products(call, family):
    """Forward two products, backward four: else one attention implementation would have a lower limit than another."""
    fused, eager = (tiny_model(family, attn_implementation=name) for name in ("sdpa", "eager"))
    assert operations(call, fused) == operations(call, eager)


def test_an_unknown_product_is_an_error():
    """A new kind of layer must not drop out of the count in silence."""
    with pytest.raises(NotImplementedError, match="convolution"):
        products_of(torch.ops.aten.convolution, ())


@pytest.mark.parametrize("layout", ["contiguous", "recorded"])
def test_bare_products_have_the_recorded_shapes(layout):
    """The limit is that of the very products, in their order."""
    products = [Product(1, 3, 4, 5, "NT"), Product(2, 6, 4, 3), Product(1, 4, 3, 30, "TN")]
    bare = BareProducts(products, torch.float32, torch.device("cpu"), layout)
    assert record(bare) == (
        [Product(p.batch, p.m, p.k, p.n) for p in products] if layout == "contiguous" else products
    )
    _, left, right, out = bare.calls[-1]
    assert torch.allclose(out, left @ right, atol=1e-5)


@pytest.mark.parametrize("source", ["random weights", "checkpoint"])
def test_runs_from_end_to_end(source, tmp_path, monkeypatch, capsys):
    """The README quotes these tables."""
    monkeypatch.setattr(throughput, "MINILM", TINY)
    file = tmp_path / "out.json"
    arguments = "--device cpu --length 10 --steps 2 --batch_sizes 1 3 --train_batch_size 4 --repeats 2".split()
    if source == "checkpoint":
        tiny_model().save_pretrained(tmp_path / "model")
        arguments += ["--model", str(tmp_path / "model")]
    report = throughput.main([*arguments, "--json", str(file)])
    assert json.loads(file.read_text()) == report
    assert [(row["what"], row["batch_size"]) for row in report["rows"]] == [
        ("inversion", 1), ("inversion", 3), ("training", 4)
    ]  # fmt: skip
    for groups in report["profiles"].values():
        assert sum(spent["share"] for spent in groups.values()) == pytest.approx(1)
        assert groups["matrix products"]["share"] > 0
    assert "where the time of training, batch 4, goes" in capsys.readouterr().out


def test_a_row_holds_its_own_numbers():
    """Sequences are those of the batch, operations those of one sequence."""
    args = parse(["--device", "cpu", "--repeats", "3"])
    left, right = torch.randn(8, 16), torch.randn(16, 4)
    row = measure("product", 8, lambda: left @ right, args)
    assert row["gflop_per_sequence"] == 2 * 16 * 4 / 1e9
    assert row["products"] == [dict(batch=1, m=8, k=16, n=4, layout="NN", count=1)]
    assert row["sequences_per_second"] == pytest.approx(8 / row["ms"] * 1e3)
    assert row["share_of_limit"] == pytest.approx(row["limit_ms"] / row["ms"])
