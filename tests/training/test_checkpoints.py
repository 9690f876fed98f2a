"""Checkpoints and exports under trouble: kills at any file operation, disks that fill, losses that are not finite."""

import json
import os
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from modeling_embinv.data import folders
from modeling_embinv.data.files import write_json
from modeling_embinv.data.noise import NoisedBatch
from modeling_embinv.data.parts import LOCK, locked
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.training.assemble import train
from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.training.checkpoints import checkpoints, export, remove_unfinished, save_checkpoint
from modeling_embinv.training.loop import Run
from modeling_embinv.training.run_data import build_data
from modeling_embinv.training.run_model import build_model
from tests.training.tiny_runs import (
    ROOT,
    TINY_TRUNK,
    in_two_forks,
    killed_at,
    log,
    settings,
    small_tokenizer,
    weights,
)


@pytest.mark.parametrize("eval_steps", [100, 5], ids=["checkpoint", "export"])
def test_a_full_disk_costs_no_more_than_the_step(pairs, tmp_path, file_limit, eval_steps):
    """A page of safetensors' own errors, half a folder that stays, or a run that cannot go on afterwards."""
    flags = dict(eval_steps=eval_steps, validation_size=4)
    whole = train(settings(pairs, tmp_path / "whole", **flags))
    out = tmp_path / "out"
    train(settings(pairs, out, **flags, max_steps=3))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "log.jsonl"}
    file_limit(100_000)
    with pytest.raises(OSError, match="cannot (save|write) .*(step-000000006|best)") as caught:
        train(settings(pairs, out, **flags))
    file_limit(None)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "log.jsonl"}
    train(settings(pairs, out, **flags))
    assert all(torch.equal(weight, weights(out / "last")[name]) for name, weight in weights(whole).items())
    assert [line["step"] for line in log(out)] == [1, 2, 3, 4, 5, 6]


def test_a_second_run_is_refused_while_the_first_trains(pairs, tmp_path, monkeypatch):
    """Two runs of one command wrote each other's checkpoints and one log."""
    config, update, refused = settings(pairs, tmp_path / "out", max_steps=2), Run.update, []

    def again(self, step, kind="masked"):
        if not refused:
            with pytest.raises(EmbInvError, match="out: another run is writing there") as error:
                locked(tmp_path / "out").__enter__()
            refused.append(error)
        return update(self, step, kind)

    monkeypatch.setattr(Run, "update", again)
    train(config)
    assert refused and not (tmp_path / "out" / LOCK).exists()
    with locked(tmp_path / "out"), pytest.raises(OSError, match="out: another run is writing there"):
        train(config)


def exit_at(count: int, folder: Path):
    """End this process as a kill would, at its file operation number `count` within the folder.

    Of those on files, hundreds that are alike, every fourth counts; of those on folders, and of renames, all.
    """
    seen = files = 0

    def hook(event: str, arguments: tuple):
        nonlocal seen, files
        on_file, on_folder = event in ("open", "os.remove"), event in ("os.rename", "os.rmdir", "os.mkdir")
        if (on_file or on_folder) and str(folder) in str(arguments[0]):
            files += on_file
            seen += on_folder or files % 4 == 0
            if seen == count:
                os._exit(9)

    sys.addaudithook(hook)


@pytest.mark.slow
def test_a_kill_at_any_file_operation(encoder, tmp_path):
    """Half a checkpoint or export under a name that counts, a moment without the export, or leftovers for ever."""
    tokenizer = small_tokenizer(encoder)
    model = new_inverter(tokenizer, {**TINY_TRUNK, "hidden_size": 8}, embedding_dim=8, max_sequence_length=8)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(model)

    def save(folder: Path, step: int):
        with torch.no_grad():
            model.decoder.bias.fill_(step)
        save_checkpoint(accelerator, folder, step, keep=1)
        export(model, tokenizer, folder / "best")

    save(tmp_path / "first", 1)
    count = killed = 0
    while True:
        count += 1
        folder = Path(shutil.copytree(tmp_path / "first", tmp_path / str(count)))
        child = os.fork()
        if child == 0:
            exit_at(count, folder)
            save(folder, 2)
            os._exit(0)
        finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        if sys.platform == "linux":
            load_file(folder / "best" / "model.safetensors")  # nobody has cleaned up yet
        remove_unfinished(folder)
        kept = [path.name for path in checkpoints(folder)]
        assert sorted(path.name for path in folder.iterdir()) == ["best", *kept] and kept
        for path in [*checkpoints(folder), folder / "best"]:
            bias = load_file(path / "model.safetensors")["decoder.bias"]
            assert float(bias[0]) in (1.0, 2.0)
            assert {"model.safetensors"} < {file.name for file in path.iterdir()}
        save(folder, 3)
        assert [path.name for path in checkpoints(folder)] == ["step-000000003"]
        if finished:
            break
        killed += 1
    assert killed >= 30


def test_systems_without_an_exchange(encoder, tmp_path, monkeypatch):
    """Windows: the new export must get there, and a kill between two renames must not lose the old one for good."""
    tokenizer = small_tokenizer(encoder)
    model = new_inverter(tokenizer, {**TINY_TRUNK, "hidden_size": 8}, embedding_dim=8, max_sequence_length=8)
    monkeypatch.setattr(folders, "_EXCHANGES", {})
    for _ in range(2):
        export(model, tokenizer, tmp_path / "best")
        assert [path.name for path in tmp_path.iterdir()] == ["best"]
    (tmp_path / "best").replace(tmp_path / "best.old")
    (tmp_path / "best.partial").mkdir()
    (tmp_path / "best.old things").mkdir()  # somebody's own
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "best.old things"]
    assert (tmp_path / "best" / "config.json").exists()


def test_after_a_kill_in_the_first_save(pairs, tmp_path):
    """A half-written checkpoint that counts as one skips the warm-up for good, and its files get into the next."""
    for name in ("step-000000003.partial", "step-000000001.removing", "last.old.removing"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "junk.bin").write_bytes(b"half")
    lines = ['{"step": 1, "train/loss": 3.0}', '{"step": 2, "tr']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    train(settings(pairs, tmp_path, bag_of_words_steps=2, bag_of_words_batch_size=8, max_steps=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best", "last", "log.jsonl", "settings.yaml", "step-000000003",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("junk.bin"))
    read = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in read if "bag_of_words/loss" in line] == [0, 0]
    assert [line["step"] for line in read if "train/loss" in line] == [1, 2, 3]


def test_a_resumed_run_logs_no_update_twice(pairs, tmp_path):
    """A kill between logging and saving leaves lines of updates that the next run does again."""
    train(settings(pairs, tmp_path, max_steps=3))
    before = (tmp_path / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(before + '{"step": 4, "train/loss": 1.0}\n{"step": 5, "train/lo')
    train(settings(pairs, tmp_path))
    assert (tmp_path / "log.jsonl").read_text().startswith(before)
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_starts_over_keeps_its_own_checkpoints(pairs, tmp_path):
    """Checkpoints of the abandoned run, of later steps, counted as newer than the new run's, which went at once."""
    train(settings(pairs, tmp_path))
    train(settings(pairs, tmp_path, resume=False, max_steps=3, keep_checkpoints=1))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000003"]
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3]


def test_a_run_that_starts_over_loses_nothing_before_its_first_checkpoint(pairs, tmp_path):
    """The old log was lost at the second start, and the old run went on in the log of the one that was killed."""
    train(settings(pairs, tmp_path, max_steps=3, eval_steps=1))
    before = (tmp_path / "log.jsonl").read_text()
    for _ in range(2):
        with killed_at(2):
            train(settings(pairs, tmp_path, resume=False))
        assert [path.name for path in checkpoints(tmp_path)] == ["step-000000003"]
        assert [line["step"] for line in log(tmp_path)] == [1, 2]
    train(settings(pairs, tmp_path))  # the old run goes on
    assert (tmp_path / "log.jsonl").read_text().startswith(before)
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    train(settings(pairs, tmp_path, max_steps=7))
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("flags", [{"learning_rate": 1e21}, {"surrogate_rank": 4, "learning_rate": 1e30}], ids=str)
def test_a_loss_that_is_not_finite_stops_the_run(pairs, tmp_path, flags):
    """A diverged run trained on NaN to its end, and its checkpoints took the place of the good ones."""
    with pytest.raises(ValueError, match=r"^update [2-6]: the loss or its gradient is not finite.*learning_rate"):
        train(settings(pairs, tmp_path, max_steps=6, save_steps=1, keep_checkpoints=1, **flags))
    kept = checkpoints(tmp_path)[-1]
    assert all(weight.isfinite().all() for weight in load_file(kept / "model.safetensors").values())
    assert all(line["train/loss"] < 1e30 for line in log(tmp_path))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_learns_at_the_rates_that_it_is_given(pairs, tmp_path, optimizer):
    """The message of a diverged run advises a lower learning_rate, and the checkpoint's own went on in its place."""
    flags = dict(optimizer=optimizer, save_steps=1, keep_checkpoints=9)
    train(settings(pairs, tmp_path, max_steps=3, embedding_rate=0.1, **flags))
    train(settings(pairs, tmp_path, max_steps=4, learning_rate=0.0, **flags))
    before, after = (load_file(tmp_path / f"step-00000000{step}" / "model.safetensors") for step in (3, 4))
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    train(settings(pairs, tmp_path, max_steps=5, learning_rate=2e-3, weight_decay=0.5, embedding_rate=0.2, **flags))
    kept = [torch.load(path) for path in sorted((tmp_path / "step-000000005").glob("optimizer*.bin"))]
    groups = [group for state in kept for group in state["param_groups"]]
    assert len(groups) == (3 if optimizer == "adamw" else 4)
    assert [group["lr"] for group in groups[:3]] == pytest.approx([2e-3, 2e-3, 4e-4])
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0, *[0.5] * (len(groups) - 2)]
    assert [line["train/learning_rate"] for line in log(tmp_path)] == pytest.approx([1e-3, 1e-3, 1e-3, 0.0, 2e-3])


def test_a_resumed_run_may_accumulate_otherwise(pairs, tmp_path):
    """The count of micro-batches went on where it was, so each update took one of its own and one of the next.

    With a rate of 0 the weights never change: gradients are those of the batches alone.
    """
    flags = dict(learning_rate=0.0, batch_size=2)
    train(settings(pairs, tmp_path / "whole", gradient_accumulation_steps=2, **flags))
    train(settings(pairs, tmp_path / "parts", max_steps=3, **flags))
    train(settings(pairs, tmp_path / "parts", gradient_accumulation_steps=2, **flags))
    norms = [[line["train/grad_norm"] for line in log(tmp_path / name)[3:]] for name in ("whole", "parts")]
    assert len(norms[0]) == 3 and norms[0] == norms[1]


def test_all_processes_stop(pairs, tmp_path):
    """A process that stops alone leaves the others waiting for its gradients until they time out."""
    in_two_forks(settings(pairs, tmp_path, learning_rate=1e21, max_steps=50, log_steps=50, eval_steps=50))
    messages = [path.read_text() for path in tmp_path.glob("*.error")]
    assert len(messages) == 2 and all("the loss or its gradient is not finite" in line for line in messages)


def test_the_script_ends_with_one_line(tmp_path, monkeypatch, capsys):
    """A page of traceback for a misspelt file name."""
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "missing.yaml")])
    with pytest.raises(SystemExit, match="^2$"):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: cannot read") and "missing.yaml" in line


def test_a_warm_up_that_diverges_stops(pairs, tmp_path):
    """The warm-up's loss was looked at by nobody."""
    with pytest.raises(ValueError, match=r"^bag of words, update \d+: the loss is not finite"):
        train(settings(pairs, tmp_path, bag_of_words_steps=6, bag_of_words_batch_size=8, bag_of_words_rate=1e30))


def test_an_export_holds_no_infinity(encoder, tmp_path):
    """Weights beyond half precision's 65,504 become infinite in the export, and every text nonsense."""
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    model = new_inverter(tokenizer, {**TINY_TRUNK, "hidden_size": 8}, embedding_dim=8, max_sequence_length=8)
    with torch.no_grad():
        model.decoder.bias[5] = 1e5
    with pytest.raises(ValueError, match="decoder.bias is not finite in torch.float16"):
        export(model, tokenizer, tmp_path / "best")
    assert not list(tmp_path.iterdir())


def test_files_of_one_stem_are_written_apart(tmp_path, file_limit):
    """Both went through one temporary file; a disk that fills left half of it."""
    (tmp_path / "report.tmp").write_text("mine")
    write_json(tmp_path / "report.json", {"a": 1})
    file_limit(100)
    with pytest.raises(OSError):
        write_json(tmp_path / "report.json", {"a": "x" * 1000})
    file_limit(None)
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.tmp"]


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"hidden_size": 33}, "not a multiple of the number of attention heads"),
        ({"hidden_size": "wide"}, "backbone_config is impossible"),
        ({"hidden_act": "foo"}, "no model can be built"),
        ({"num_hidden_layers": 999_999}, "1 to 1,000 layers"),
        ({"num_hidden_layers": 0}, "1 to 1,000 layers"),
        ({"hidden_size": 65_536, "intermediate_size": 1_000_000}, "2,000,000,000 weights at most"),
    ],
)
def test_sizes_are_tried_without_memory(pairs, tmp_path, sizes, message):
    """A mistyped size took all memory before anybody said a word, or was transformers' own kind of error."""
    with pytest.raises(ValueError, match=message) as caught:
        train(settings(pairs, tmp_path, backbone_config=json.dumps(TINY_TRUNK | sizes)))
    assert "\n" not in str(caught.value)


class _Joined(Run):
    """A run whose every batch is two of the other run's micro-batches."""

    def noised_batch(self, index: int, canvas: int) -> NoisedBatch:
        left, right = (super(_Joined, self).noised_batch(2 * index + part, canvas) for part in range(2))
        offset = left.input_ids.numel()
        joined = {name: torch.cat([getattr(left, name), getattr(right, name)]) for name in (
            "input_ids", "noised_ids", "embedding", "timestep", "masked", "condition_mask", "targets",
            "position_weights",
        )}  # fmt: skip
        return NoisedBatch(positions=torch.cat([left.positions, right.positions + offset]), **joined)


@pytest.mark.parametrize("loss_weight", ["none", "inverse_t"])
def test_accumulation_equals_one_large_batch(pairs, tmp_path, encoder, loss_weight):
    """A mean over each micro-batch's own masked positions counts those of a batch with few of them more."""
    config = settings(pairs, tmp_path, gradient_accumulation_steps=2, loss_weight=loss_weight, tail_share=0.5)

    def trained(kind: type[Run], config) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=config.gradient_accumulation_steps)
        model, tokenizer = build_model(config, encoder)
        batches, held_out = build_data(config, encoder, model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model, optimizer = accelerator.prepare(model, optimizer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        run = kind(
            config, accelerator=accelerator, model=model, tokenizer=tokenizer, encoder=encoder,
            optimizers=[optimizer], schedulers=[scheduler], batches=batches, held_out=held_out,
        )  # fmt: skip
        losses = [float(run.update(step)[0]) for step in range(3)]
        return losses, {name: weight.detach().clone() for name, weight in model.named_parameters()}

    losses, accumulated = trained(Run, config)
    whole_losses, whole = trained(_Joined, replace(config, gradient_accumulation_steps=1))
    assert losses == pytest.approx(whole_losses, rel=1e-4)
    for name, weight in whole.items():
        assert torch.allclose(weight, accumulated[name], atol=1e-5), name


def test_a_run_that_goes_on_elsewhere_has_a_best(pairs, tmp_path):
    """The best loss came along with the checkpoint and its model did not: the new folder might never get one."""
    values = dict(eval_steps=2, save_steps=2)
    train(settings(pairs, tmp_path / "first", max_steps=2, **values))
    shutil.copytree(tmp_path / "first" / "step-000000002", tmp_path / "second" / "step-000000002")
    # a run whose losses grow
    train(settings(pairs, tmp_path / "second", max_steps=4, learning_rate=10.0, **values))
    assert (tmp_path / "second" / "best" / "model.safetensors").is_file()
