"""What a run goes on from, and with what: other data, another encoder, nothing left to do, an old run."""

import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeling_embinv.data.prepare import prepare
from modeling_embinv.data.sources import Document
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.training.assemble import train
from modeling_embinv.training.checkpoints import Progress, checkpoints
from modeling_embinv.training.loop import Run
from tests.training.tiny_runs import SENTENCES, killed_at, log, settings, weights


@pytest.fixture(scope="module")
def others(encoder, tmp_path_factory) -> Path:
    """Pairs of other texts than `pairs`."""
    folder, texts = (
        tmp_path_factory.mktemp("others") / "out",
        [f"{line} {day}" for line in SENTENCES for day in "abcde"],
    )
    prepare([Document(t, t) for t in texts], encoder, folder, length=16, validation_share=0.3, show_progress=False)
    return folder


def progress(checkpoint: Path) -> tuple[Path, dict]:
    """The file of a checkpoint that holds where the run stands, and its content."""
    for path in sorted(checkpoint.glob("custom_checkpoint_*.pkl")):
        state = torch.load(path)
        if "best" in state:
            return path, state
    raise AssertionError(checkpoint)


def with_best_of(folder: Path, loss: float, *forgotten: str):
    """Let the newest checkpoint's run have had this best loss, and its file none of the keys `forgotten`."""
    path, state = progress(checkpoints(folder)[-1])
    torch.save({key: value for key, value in (state | {"best": loss}).items() if key not in forgotten}, path)


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


CAUSAL = dict(num_condition_tokens=1, causal_share=0.2, eval_steps=3, generation_size=0)


@pytest.mark.parametrize("change", ["pairs", "validation_size", "mask_ratio", "causal_share"])
def test_a_best_of_other_texts_or_another_loss_does_not_count(pairs, others, tmp_path, capsys, change):
    """A loss on easy texts stayed the best for ever, and the model of other texts was never written."""
    train(settings(pairs, tmp_path, max_steps=3, **CAUSAL))
    with_best_of(tmp_path, 1e-6)
    before = written(tmp_path / "best")
    changed = {"pairs": str(others), "validation_size": 3, "mask_ratio": 0.5, "causal_share": 1.0}[change]
    capsys.readouterr()
    train(settings(pairs, tmp_path, **CAUSAL | {change: changed}))
    assert len(re.findall(r"^best is chosen anew: .*$", capsys.readouterr().out, re.MULTILINE)) == 1
    assert written(tmp_path / "best") != before


@pytest.mark.parametrize("forgotten", [[], ["measured", "encoder"]], ids=["", "older version"])
def test_a_best_of_the_same_texts_counts(pairs, tmp_path, capsys, forgotten):
    """A better model of before must not give way, nor that of an older version, which noted less."""
    train(settings(pairs, tmp_path, max_steps=3, **CAUSAL))
    with_best_of(tmp_path, 1e-6, *forgotten)
    before = written(tmp_path / "best")
    train(settings(pairs, tmp_path, **CAUSAL | {"causal_share": 0.4, "learning_rate": 1e-4}))
    assert "best is chosen anew" not in capsys.readouterr().out
    assert written(tmp_path / "best") == before
    assert progress(checkpoints(tmp_path)[-1])[1]["measured"] is not None


def test_another_encoder_is_refused(pairs, tmp_path):
    """The run went on with vectors of another prompt, and its export named that prompt alone."""
    (tmp_path / "texts.txt").write_text(
        "\n".join(f"{line} It was day {day}." for line in SENTENCES for day in range(40))
    )
    yaml, out = tmp_path / "mine.yaml", tmp_path / "out"
    yaml.write_text("id: sentence-transformers/all-MiniLM-L6-v2\n")
    flags = dict(pairs=None, texts=[str(tmp_path / "texts.txt")], encoder=str(yaml), generation_size=0)
    train(settings(pairs, out, max_steps=3, **flags))
    before = written(out)
    # another name of the same encoder
    yaml.write_text("id: all-MiniLM-L6-v2\nmax_length: 64\n")
    train(settings(pairs, out, max_steps=4, **flags))
    assert written(out) != before
    before, lines = written(out), (out / "log.jsonl").read_text()
    yaml.write_text('id: sentence-transformers/all-MiniLM-L6-v2\nprompt: "query: "\n')
    with pytest.raises(EmbInvError, match="step-000000004 .* encoder_prompt None, .* 'query: '.*--no-resume") as error:
        train(settings(pairs, out, **flags))
    assert "\n" not in str(error.value) and (out / "log.jsonl").read_text() == lines
    assert {name for name, time in written(out).items() if before[name] != time} <= {str(out / "log.jsonl")}
    with_best_of(out, 1.0, "measured", "encoder")  # an older version noted no encoder
    train(settings(pairs, out, **flags))


def test_the_folder_of_an_encoder_may_have_moved(tmp_path):
    """A run whose encoder lies in a folder could not be resumed on a machine where that has another path."""
    before = {"step": 3, "best": 1.0, "measured": "m", "encoder": {"encoder_id": "/elsewhere/encoder"}}
    for name, fits in ((str(tmp_path), True), ("BAAI/bge-m3", False)):
        progress = Progress("m", {"encoder_id": name})
        progress.load_state_dict(before)
        with nullcontext() if fits else pytest.raises(EmbInvError, match="encoder_id '/elsewhere/encoder'"):
            assert progress.check(tmp_path / "step-000000003")


def test_a_finished_run_is_left_alone(pairs, tmp_path, capsys):
    """The same command again wrote `last` anew, without the calibration and the scores that were put into it."""
    config = settings(pairs, tmp_path, max_steps=3)
    last = train(config)
    file = last / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"calibration": {"open_loop": {"bias": 0.1}}}))
    (last / "evaluation.json").write_text("{}")
    before = {name: time for name, time in written(tmp_path).items() if not name.endswith("log.jsonl")}
    lines = log(tmp_path)
    capsys.readouterr()
    for steps in (3, 2):
        assert train(replace(config, max_steps=steps)) == last
        assert "finished at step 3" in capsys.readouterr().out
    assert {name: time for name, time in written(tmp_path).items() if not name.endswith("log.jsonl")} == before
    assert log(tmp_path) == lines


def test_a_last_of_an_earlier_end_is_written_anew(pairs, tmp_path):
    """Killed between its last checkpoint and the export, a run kept the `last` of the updates before for good."""
    whole = train(settings(pairs, tmp_path / "whole"))
    train(settings(pairs, tmp_path / "out", max_steps=3))
    shutil.copytree(tmp_path / "out" / "last", tmp_path / "earlier")
    last = train(settings(pairs, tmp_path / "out"))
    shutil.rmtree(last)
    (tmp_path / "earlier").replace(last)
    again = weights(train(settings(pairs, tmp_path / "out")))
    assert all(torch.equal(weight, again[name]) for name, weight in weights(whole).items())


def test_a_run_that_starts_over_drops_the_old_one(pairs, tmp_path):
    """An old run's checkpoint of a smaller step stayed as "the one before", to which a damaged one sends the user."""
    train(settings(pairs, tmp_path, max_steps=2, save_steps=1))
    config = settings(pairs, tmp_path, resume=False, seed=2)
    train(replace(config, max_steps=3))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000003"]
    train(replace(config, resume=True))
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000003", "step-000000006"]


def test_a_line_after_ctrl_c_begins_anew(pairs, tmp_path, capsys):
    """The bar was open, and the line that says what is kept stuck to its end."""
    with killed_at(2) as caught:
        train(settings(pairs, tmp_path))
    shown = capsys.readouterr().err  # as long as the loop's frame is alive: nobody else has closed the bar
    assert "training" in shown and shown.endswith("\n") and caught.tb is not None


@pytest.mark.parametrize("more", [0, 2])
def test_a_kill_in_a_validation_loses_no_update(pairs, tmp_path, monkeypatch, capsys, more):
    """Every update since the last save was lost in a minute of which the bar said nothing but 100 %.

    A run that goes on validates first: without that, `best` would be of the validation before.
    """
    flags = dict(eval_steps=3, save_steps=6, generation_size=0)
    train(settings(pairs, tmp_path / "whole", **flags, max_steps=6 + more))
    scores, updates, update = Run.held_out_scores, [], Run.update

    def killed(self):
        if self.progress.step == 6:
            raise KeyboardInterrupt
        return scores(self)

    monkeypatch.setattr(Run, "held_out_scores", killed)
    with pytest.raises(KeyboardInterrupt):
        train(settings(pairs, tmp_path / "out", **flags))
    assert "validating:" in capsys.readouterr().err
    monkeypatch.setattr(Run, "held_out_scores", scores)
    monkeypatch.setattr(Run, "update", lambda self, step, kind: updates.append(step) or update(self, step, kind))
    train(settings(pairs, tmp_path / "out", **flags, max_steps=6 + more))
    assert updates == list(range(6, 6 + more))
    for name in ("best", "last"):
        whole, out = (weights(tmp_path / folder / name) for folder in ("whole", "out"))
        assert all(torch.equal(weight, out[key]) for key, weight in whole.items())
    logs = [(tmp_path / folder / "log.jsonl").read_text().splitlines() for folder in ("whole", "out")]
    whole, out = ([json.loads(line) for line in lines if "validation/loss" in line] for lines in logs)
    assert whole == out and [line["step"] for line in out] == [3, 6, *[6 + more] * (more > 0)]
    train(settings(pairs, tmp_path / "out", **flags, max_steps=7 + more))  # no validation is due any more
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert updates[-1] == 6 + more and sum("validation/loss" in line for line in lines) == len(out) + 1


def test_texts_are_counted_not_rows(pairs, tmp_path, monkeypatch):
    """With complementary masks a text has two rows, so the log said twice the speed; a surrogate's rows are texts."""
    flags = dict(complementary_masks=True, loss_weight="none", generation_size=0, max_steps=1)
    speeds, logged = [], Run.log

    def counted(self, *arguments):
        speeds.append(self.texts)
        logged(self, *arguments)

    monkeypatch.setattr(Run, "log", counted)
    train(settings(pairs, tmp_path / "masked", **flags))
    train(settings(pairs, tmp_path / "causal", num_condition_tokens=1, causal_share=0.99, **flags))
    train(settings(pairs, tmp_path / "surrogate", surrogate_rank=4, **flags))
    assert speeds == [2, 4, 4]
