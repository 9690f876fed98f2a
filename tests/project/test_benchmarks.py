"""The benchmarks count what they say they count, and run."""

import json
import sys

import busy_machine
import growth
import many_vectors
import psutil
import pytest
import throughput
import torch
import vs_autoregressive
import vs_vec2text
import yaml
from autoregressive import AutoregressiveInverter
from matrix_products import BareProducts, Product, products_of, record
from run_folder import begin_run
from throughput import measure, parse
from torch.utils.flop_counter import FlopCounterMode

from modeling_embinv import linear_embinv
from modeling_embinv.linear_embinv import Linear
from modeling_embinv.training.flops import ONEDNN_OPERATIONS
from tests.tiny_models import END, VOCAB, tiny_config, tiny_model, unit_vectors

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
    with FlopCounterMode(display=False, custom_mapping=in_place | ONEDNN_OPERATIONS) as counter:
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


def test_products_by_onednn_are_counted_and_run_by_onednn():
    """The limit of another library would make a share of more than all of it."""
    layer, inputs = Linear(4, 5), torch.randn(2, 3, 4)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(linear_embinv, "PREFERS_ONEDNN", True)
        products = record(lambda: layer(inputs))
    assert products == [Product(1, 6, 4, 5, "NT", onednn=True)]
    assert record(BareProducts(products, torch.float32, torch.device("cpu"), "contiguous")) == products


@pytest.mark.parametrize("source", ["random weights", "checkpoint"])
def test_runs_from_end_to_end(source, tmp_path, monkeypatch, capsys):
    """The README quotes these tables."""
    monkeypatch.setattr(throughput, "MINILM", TINY)
    file = tmp_path / "out.json"
    arguments = [
        "--device", "cpu", "--length", "10", "--steps", "2", "--batch_sizes", "1", "3", "--train_batch_size", "4",
        "--repeats", "2", "--int8",
    ]  # fmt: skip
    if source == "checkpoint":
        tiny_model().save_pretrained(tmp_path / "model")
        arguments += ["--model", str(tmp_path / "model")]
    report = throughput.main([*arguments, "--json", str(file)])
    assert json.loads(file.read_text()) == report
    assert [(row["what"], row["batch_size"]) for row in report["rows"]] == [
        ("inversion", 1), ("inversion", 3), ("int8", 1), ("int8", 3), ("training", 4)
    ]  # fmt: skip
    for groups in report["profiles"].values():
        assert sum(spent["share"] for spent in groups.values()) == pytest.approx(1)
        assert groups["matrix products"]["share"] > 0
    assert "where the time of training, batch 4, goes" in capsys.readouterr().out


def test_growth_varies_one_thing_at_a_time(monkeypatch, tmp_path):
    """A flag that does not reach the model would print a flat line; a training step has no passes to vary."""
    monkeypatch.setattr(throughput, "MINILM", TINY)
    monkeypatch.setattr(growth, "USUAL", {"batch": 2, "length": 8, "vocabulary": 200, "passes": 2})
    values = {"batch": (2, 4), "length": (8, 32), "vocabulary": (200, 400), "passes": (2, 4)}
    monkeypatch.setattr(growth, "VALUES", values)
    result = growth.main(["--seconds", "0", "--device", "cpu", "--json", str(tmp_path / "growth.json")])
    assert json.loads((tmp_path / "growth.json").read_text()) == result
    cost = {(row["what"], *(row[name] for name in growth.USUAL)): row["gflop_per_sequence"] for row in result["rows"]}
    usual = cost["inversion", 2, 8, 200, 2]
    assert cost["inversion", 4, 8, 200, 2] == pytest.approx(usual)
    assert cost["inversion", 2, 32, 200, 2] > 3.5 * usual
    assert 1.2 * usual < cost["inversion", 2, 8, 400, 2] < 2 * usual < 2.1 * cost["inversion", 2, 8, 200, 4]
    assert ("training", 2, 8, 200, 2) in cost and ("training", 2, 8, 200, 4) not in cost
    assert len(cost) == len(result["rows"]) == 9  # the usual setting is measured once
    assert result["table"].count("| 2 |") == 2 and result["table"].count("— | — | —") == 1


def test_a_row_holds_its_own_numbers():
    """Sequences are those of the batch, operations those of one sequence."""
    args = parse(["--device", "cpu", "--repeats", "3"])
    left, right = torch.randn(8, 16), torch.randn(16, 4)
    row = measure("product", 8, lambda: left @ right, args)
    assert row["gflop_per_sequence"] == 2 * 16 * 4 / 1e9
    assert row["products"] == [dict(batch=1, m=8, k=16, n=4, layout="NN", onednn=False, count=1)]
    assert row["sequences_per_second"] == pytest.approx(8 / row["ms"] * 1e3)
    assert row["share_of_limit"] == pytest.approx(row["limit_ms"] / row["ms"])


@pytest.fixture
def left_to_right():
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(0)
    config = tiny_config(eos_token_id=END)
    settings = BertConfig(**{**TINY, "vocab_size": VOCAB}, is_decoder=True)
    model = AutoregressiveInverter(BertLMHeadModel(settings), config, prefix=2).eval()
    with torch.no_grad():
        for weight in model.decoder.bert.encoder.parameters():
            weight.mul_(3)
    return model


def test_the_autoregressive_peer_sees_only_the_past(left_to_right):
    """A peer that sees its targets trains to nothing; one that is scored behind its end trains on padding."""
    ids = torch.randint(4, VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    ids[:, 7:] = END
    vectors = unit_vectors(3)
    behind = ids.clone()
    behind[:, 8:] = 5
    behind[:, 7] = END
    whole = left_to_right.loss(ids, vectors)
    assert torch.allclose(left_to_right.loss(behind, vectors), whole)
    assert not torch.allclose(left_to_right.loss(ids, unit_vectors(3, seed=1)), whole)
    seen = torch.cat([left_to_right.prefix_of(vectors), left_to_right.get_input_embeddings()(ids)], dim=1)
    other = seen.clone()
    other[:, 6:] = 0
    states = [left_to_right.decoder.bert(inputs_embeds=x).last_hidden_state[:, :6] for x in (seen, other)]
    assert torch.allclose(*states, atol=1e-5)


def test_the_autoregressive_peer_writes_what_its_loss_predicts(left_to_right):
    """A prefix that is shifted by one, or a cache that is out of step, would make the peer look worse than it is."""
    vectors = unit_vectors(2)
    ids = left_to_right.generate(vectors)
    assert ids.shape == (2, 12)
    prefix = left_to_right.prefix_of(vectors)
    for row in range(2):
        known = prefix[row : row + 1]
        for place in range(12):
            token = int(left_to_right.decoder(inputs_embeds=known).logits[0, -1].argmax())
            if place == 0 and token == END:
                break
            assert token == int(ids[row, place])
            if token == END:
                break
            known = torch.cat([known, left_to_right.get_input_embeddings()(torch.tensor([[token]]))], dim=1)


def test_each_vector_gets_the_closest_of_its_own_beams(left_to_right):
    """Beams of one vector given to another, or the encoder's worst in place of its best."""
    space = unit_vectors(VOCAB)
    embed = lambda ids: space[ids[..., 0]]  # noqa: E731
    ids = torch.arange(4, 16).view(3, 4, 1).expand(3, 4, 12).contiguous()
    wanted = torch.tensor([6, 8, 15])
    assert torch.equal(vs_autoregressive.closest(ids, space[wanted], embed)[:, 0], wanted)
    vectors = unit_vectors(2)
    beams = left_to_right.generate(vectors, num_beams=4, num_texts=4).unflatten(0, (-1, 4))
    assert torch.equal(beams[:, 0], left_to_right.generate(vectors, num_beams=4)), "the first beam is the likeliest"


def test_rounds_of_vec2text_are_extrapolated_in_a_straight_line():
    """An estimate that counts the first round, which is cheaper, as one of the later ones."""
    first, later = 3.0, 10.0
    cost = lambda steps: first + (steps - 1) * later  # noqa: E731
    assert vs_vec2text.from_few_steps(cost(2), cost(3), 50) == cost(50)


def test_the_comparison_is_a_ratio_within_one_batch_size():
    """Seconds of a batch against seconds of a text, or another batch size as the base."""
    rows = [
        vs_vec2text.Row("vec2text 20×1", 1, [10.0]), vs_vec2text.Row("vec2text 20×1", 8, [40.0]),
        vs_vec2text.Row("ours", 8, [1.0, 2.0, 9.0], encoder_calls=80),
    ]  # fmt: skip
    last = vs_vec2text.table(rows).splitlines()[-1]
    assert "20.0×" in last and "| 10 |" in last


def test_what_was_too_long_for_eight_texts_is_not_tried_on_64():
    """Two steps with many beams for 64 texts did not come to an end, and the benchmark lost its last rows.

    Nor are two steps begun of which eight texts say that they take minutes: all memory went with them.
    """
    rows = [vs_vec2text.Row("vec2text 20×8", 1, [10.0]), vs_vec2text.Row("vec2text 20×1", 8, [10.0])]
    assert vs_vec2text.wanted(rows, (20, 1), 1, None, 60) and vs_vec2text.wanted(rows, (20, 1), 64, 8, 60)
    assert not vs_vec2text.wanted(rows, (20, 1), 8, 1, 60), "measured already"
    assert not vs_vec2text.wanted(rows, (20, 8), 64, 8, 60)
    assert not vs_vec2text.wanted(rows, (20, 1), 64, 8, 20)  # two of 20 rounds of 64 texts take 8 s


@pytest.mark.parametrize(
    "timed, scored",
    {
        "10 lightest corrections": "10 lightest rounds, encoder",
        "10 light corrections": "10 light rounds, encoder",
        "10 narrow corrections": "10 narrow rounds, encoder",
        "10 corrections": "10 wide rounds, encoder",
    }.items(),
)
def test_what_is_timed_is_what_was_scored(timed, scored):
    """Seconds of one search beside the quality of another: the comparison's oldest trick."""
    experiment = yaml.safe_load((vs_vec2text.ROOT / "experiments" / "quality_cost.yaml").read_text())
    search = (experiment["methods"] | experiment["ablations"])[scored]
    assert vs_vec2text.SEARCHES[timed] | {"feedback": "encoder", "int8": True} == search


def test_a_straight_line_is_told_from_a_bent_one():
    """The pause of a kill counted as work, or a run that slows down called a line: a lie either way."""
    rows = [{"run": 0, "seconds": 5.0 + step, "vectors": 100 * step, "mib": 900.0} for step in range(20)]
    rows += [
        {"run": 1, "seconds": 60.0 + step, "vectors": 1800 + 100 * step, "mib": 900.0 + step} for step in range(20)
    ]
    found = many_vectors.report(rows, 3700)
    assert found["hours_for_a_million"] == pytest.approx(1e6 / 100 / 3600)
    assert all(stretch["r_squared"] > 0.9999 for stretch in found["stretches"])
    assert found["stretches"][1]["mib_last_tenth"] > found["stretches"][1]["mib_first_tenth"] + 15
    bent = [row | {"seconds": row["vectors"] ** 2 / 1e4} for row in rows[:20]]
    assert many_vectors.report(bent, 2000)["stretches"][0]["largest_deviation"] > 0.05


def test_a_killed_run_is_watched_to_its_end(tmp_path):
    """A watcher that waits for parts that never come, or that takes a failure for an end."""
    writes = (
        "import os, pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n"
        "(folder / 'pid').write_text(str(os.getpid()))\nfor n in range(3):\n    (folder / f'{n}.jsonl').touch()\n"
    )
    command = [sys.executable, "-c", writes + "time.sleep(60)", str(tmp_path)]
    looks = list(many_vectors.watch(command, tmp_path, kill_at=3))
    assert looks[-1][1] == 3 and looks[-1][2] > 1
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text())), "it would keep the lock"
    watched = many_vectors.watch(command, tmp_path, kill_at=None)
    next(watched)
    watched.close()  # as when this script is stopped
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    with pytest.raises(RuntimeError, match="ended with 7"):
        list(many_vectors.watch([sys.executable, "-c", "import sys; sys.exit(7)"], tmp_path, None))


def test_the_busy_process_ends_with_the_measurement():
    """A process that computes for ever stayed behind when a measurement failed, and slowed all later ones."""
    before = set(psutil.Process().children())
    others = set()

    def fail():
        with busy_machine.busy(2):
            others.update(set(psutil.Process().children()) - before)
            raise RuntimeError("no checkpoint")

    with pytest.raises(RuntimeError, match="no checkpoint"):
        fail()
    assert len(others) == 2 and not any(process.is_running() for process in others)


def test_a_folder_holds_one_run(tmp_path):
    """With other weights or another number of updates, times of the run before were shown as the new one's."""
    begin_run(tmp_path / "new", {"updates": 3, "flags": ["--int8"]})
    begin_run(tmp_path / "new", {"updates": 3, "flags": ["--int8"]})
    with pytest.raises(SystemExit, match="is of a run with other updates: remove it"):
        begin_run(tmp_path / "new", {"updates": 4, "flags": ["--int8"]})


def test_results_have_a_folder_before_they_are_measured(tmp_path):
    """A folder of `--json` that was missing cost two hours of measuring."""
    options = vs_vec2text.parse(["--json", str(tmp_path / "new" / "out.json")])
    assert options.json.parent.is_dir()


@pytest.mark.parametrize("changed", ["threads", "checksums", "processor"])
def test_rows_of_other_weights_and_machines_are_no_rows_of_this_one(changed, tmp_path):
    """After new weights, or on another machine, the old seconds stood beside the new ones."""
    options = vs_vec2text.parse(["--json", str(tmp_path / "out.json")])
    vs_vec2text.save([vs_vec2text.Row("ours", 1, [2.0])], options)
    assert vs_vec2text.known_rows(options)[0].median == 2
    setattr(options, changed, "others")
    with pytest.raises(SystemExit, match=f"measured with another {changed}"):
        vs_vec2text.known_rows(options)
