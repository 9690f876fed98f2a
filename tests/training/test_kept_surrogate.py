"""A surrogate of whole matrices beside a trunk that trains."""

import logging
from pathlib import Path

import pytest
import torch

from modeling_embinv.loading import load_inverter
from modeling_embinv.training.assemble import train
from modeling_embinv.training.checkpoints import export
from tests.tiny_models import unit_vectors
from tests.training.tiny_runs import in_two_forks, settings, weights

TEXTS = ["the sea in spring", "two men talk", "a red kite"]
HAS_TABLE = {"with a table": True, "without": False}


@pytest.fixture(scope="module", params=list(HAS_TABLE))
def released(request, pairs, tmp_path_factory) -> tuple[Path, bool]:
    """An inverter of all-MiniLM-L6-v2 with a surrogate of its own weights, and whether that has a table."""
    folder, has_table = tmp_path_factory.mktemp("released"), HAS_TABLE[request.param]
    model, tokenizer = load_inverter(train(settings(pairs, folder / "start", max_steps=1)))
    torch.manual_seed(0)
    model.add_surrogate(model.config.hidden_size, 7, has_table=has_table)
    with torch.no_grad():
        for weight in model.surrogate.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return export(model, tokenizer, folder / "model"), has_table


def tuned(released: Path, pairs: Path, out: Path, **flags):
    strong = {"learning_rate": 0.05, "warmup_steps": 0, "max_steps": 3, "save_steps": 1}
    return settings(pairs, out, **{"init_from": str(released), "backbone_config": None, **strong, **flags})


def embedded(folder: Path) -> torch.Tensor:
    """What a checkpoint's surrogate makes of some texts."""
    model, tokenizer = load_inverter(folder)
    rows = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    ends = [model.config.eos_token_id] * max(map(len, rows))
    return model.embed([[*row, *ends][: len(ends) + 1] for row in rows])


def told(caplog) -> str:
    return " ".join(record.getMessage() for record in caplog.records if "dropped" in record.getMessage())


@pytest.mark.parametrize(
    "flags", [{}, {"embedding_rate": 0.0}, {"freeze_backbone": True}, {"num_condition_tokens": 2}], ids=str
)
def test_it_stays_the_encoder_that_it_was(released, pairs, tmp_path, caplog, flags):
    """Fine-tuning dropped it, and with it the default search, though its weights can be told beside any trunk.

    Without a table nothing takes back what training does to the token embeddings: it must go, and a line says so.
    """
    caplog.set_level(logging.WARNING)
    folder, has_table = released
    out = train(tuned(folder, pairs, tmp_path / "run", **flags))
    before, after = weights(folder), weights(out)
    moved = [name for name in before if name.startswith("trunk.") and not torch.equal(before[name], after[name])]
    assert moved
    if not has_table and flags.get("embedding_rate") != 0.0:
        assert not any(name.startswith("surrogate.") for name in after) and "the surrogate encoder" in told(caplog)
        return
    assert "surrogate encoder" not in told(caplog)
    cosine = (embedded(folder) * embedded(out)).sum(dim=1)
    assert cosine.min() > 0.9999, cosine  # 16 bits a weight round a little
    model, _ = load_inverter(out)
    found = model.generate(unit_vectors(2, 384), feedback="surrogate", num_candidates=2, num_corrections=1)
    assert found.num_surrogate_calls


def test_a_kept_surrogate_changes_no_resume(released, pairs, tmp_path):
    """Written into the run's own weights, it would differ from those that a resumed run starts from, and stop it."""
    folder, has_table = released
    flags = {} if has_table else {"embedding_rate": 0.0}
    whole = train(tuned(folder, pairs, tmp_path / "whole", **flags))
    train(tuned(folder, pairs, tmp_path / "halves", max_steps=2, **flags))
    resumed = train(tuned(folder, pairs, tmp_path / "halves", **flags))
    assert all(torch.equal(weight, weights(resumed)[name]) for name, weight in weights(whole).items())
    stamp = (resumed / "model.safetensors").stat().st_mtime_ns
    train(tuned(folder, pairs, tmp_path / "halves", **flags))
    assert (resumed / "model.safetensors").stat().st_mtime_ns == stamp  # finished: it stays as it is


def test_two_processes_keep_it(released, pairs, tmp_path):
    """Only the main process holds all weights in a sharded run, and it alone writes: the other one must not wait."""
    folder, has_table = released
    flags = {"batch_size": 2} if has_table else {"batch_size": 2, "embedding_rate": 0.0}
    in_two_forks(tuned(folder, pairs, tmp_path, **flags))
    assert (embedded(folder) * embedded(tmp_path / "last")).sum(dim=1).min() > 0.9999
