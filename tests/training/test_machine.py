"""Which floats and which attention a run computes with, its own or the machine's; and runs that change machines."""

from pathlib import Path

import pytest
import torch

from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.training.assemble import train
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.machine import attention_of, has_fast_bf16, precision_of
from modeling_embinv.training.run_model import build_model
from tests.training.tiny_runs import log, settings, weights


@pytest.mark.parametrize(
    "wanted, launched, expected",
    [
        ("auto", "bf16", "bf16"), ("auto", "fp16", "fp16"), ("bf16", "no", "bf16"), ("bf16", None, "bf16"),
        ("float32", "bf16", "no"), ("float32", None, "no"),
    ],
)  # fmt: skip
def test_the_more_explicit_word_counts(monkeypatch, wanted, launched, expected):
    """A launch file that asks for bf16, or a run that asks for float32, must not be overruled by the machine."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert precision_of(wanted) == expected


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor's flags are listed on Linux alone")
@pytest.mark.parametrize("launched", ["no", None])
def test_auto_is_what_the_processor_has(monkeypatch, launched):
    """bf16 without its own units takes four times as long as float32; float32 with them, twice as long as bf16."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched:  # what accelerate writes for a launch file that says nothing
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    flags = Path("/proc/cpuinfo").read_text().split()
    expected = "avx512_bf16" in flags or "amx_bf16" in flags
    assert has_fast_bf16() is expected and precision_of("auto") == ("bf16" if expected else "no")
    assert TrainingConfig(output_dir="out", encoder="minilm", pairs="pairs", backbone="b").mixed_precision == "auto"


def test_attention_is_the_processors_unless_it_is_named(monkeypatch, pairs, tmp_path):
    """Fused attention on a CPU costs a run of days a fifth of its texts; a named one must not be overruled."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert [attention_of(name) for name in ("auto", "sdpa", "eager")] == ["eager", "sdpa", "eager"]
    kinds = []
    for name in ("auto", "sdpa"):
        model, _ = build_model(settings(pairs, tmp_path, attn_implementation=name), load_encoder("minilm"))
        kinds.append(model.config.backbone_config._attn_implementation)
    assert kinds == ["eager", "sdpa"]


@pytest.mark.parametrize("order", [("bf16", "float32"), ("float32", "bf16")], ids="-".join)
def test_a_run_goes_on_on_the_other_kind_of_machine(pairs, tmp_path, order, capsys):
    """A checkpoint of one kind that the other cannot read would tie a run of days to one machine."""
    train(settings(pairs, tmp_path / "run", mixed_precision=order[0], max_steps=3))
    train(settings(pairs, tmp_path / "run", mixed_precision=order[1]))
    said = [line.split()[2] for line in capsys.readouterr().out.splitlines() if line.startswith("mixed precision")]
    assert said == [{"float32": "no"}.get(kind, kind) for kind in order]
    train(settings(pairs, tmp_path / "whole", mixed_precision="float32"))
    losses = [[line["train/loss"] for line in log(tmp_path / name)] for name in ("run", "whole")]
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=0.02)
    exact = [one == other for one, other in zip(*losses, strict=True)]
    assert not all(exact)  # bf16 was not float32 by another name
    run, whole = (weights(tmp_path / name / "step-000000006") for name in ("run", "whole"))
    for name, weight in run.items():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, whole[name], atol=0.01), name
