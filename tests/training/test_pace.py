"""How long a run will take, and what is wrong with its settings, is said before anybody has waited for it."""

import json
import logging

from modeling_embinv.training.assemble import train
from modeling_embinv.training.pace import Pace, duration
from tests.training.tiny_runs import settings


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(seconds: float, updates: int, total: int = 12_000) -> list[str]:
    """What is said of a run whose updates take so many seconds each, and the first of them ten minutes."""
    lines, clock = [], Clock()
    pace = Pace(total, lines.append, clock=clock)
    for done in range(1, updates + 1):
        clock.now += seconds if done > 1 else 600
        pace.note(done)
    return lines


def test_the_length_of_a_run_is_said_once():
    """A recipe for a GPU ran on a CPU for weeks, and no line said so; compiling must not count."""
    assert said(100.0, 2) == []
    assert said(100.0, 50) == ["11,997 updates are left: about 14 days at this rate"]
    assert said(0.5, 20) == []
    assert said(0.5, 500) == ["11,979 updates are left: about 100 minutes at this rate"]
    assert said(0.5, 21, total=21) == []  # nothing is left


def test_a_validation_among_the_first_updates_does_not_count():
    """Ten minutes of validation among twenty short updates made days of an hour."""
    lines, clock = [], Clock()
    pace = Pace(1020, lines.append, clock=clock)
    for done in range(1, 31):
        clock.now += 1
        pace.note(done)
        if done == 10:
            clock.now += 600
            pace.pause(600)
    assert lines == ["999 updates are left: about 17 minutes at this rate"]


def test_work_that_is_done_once_is_no_part_of_an_updates_time():
    """Fifty seconds of embedding in the first epoch alone were taken for the time of a few updates of every epoch."""
    lines, clock = [], Clock()
    pace = Pace(1021, lines.append, clock=clock)
    pace.note(1, once=50.0, ahead=None)  # nobody knows yet how long it takes
    for done in range(2, 31):
        clock.now += 1 + 50 * (done % 8 == 0)
        embedded = done // 8
        pace.note(done, once=50.0 + 50 * embedded, ahead=50.0 * (12 - embedded) if embedded else None)
    assert lines == ["1,000 updates are left: about 25 minutes at this rate"]  # 1,000 seconds, and ten times 50


def test_lengths_of_time_have_a_unit_that_people_use():
    """1209600 seconds say nothing to whoever has to wait for them."""
    lengths = (5, 119, 121, 7199, 7201, 172_799, 172_801, 1_209_600)
    assert [duration(seconds) for seconds in lengths] == [
        "5 seconds", "119 seconds", "2.0 minutes", "120 minutes", "2.0 hours", "48 hours", "2.0 days", "14 days",
    ]  # fmt: skip


def test_a_new_run_says_what_it_will_do_and_how_long_it_takes(pairs, tmp_path, capsys):
    """The parts were there and nobody called them: neither in the warm-up nor in the run.

    At its end a run said nothing, and its user looked for the folder that a hundred lines had scrolled away.
    """
    flags = dict(bag_of_words_steps=30, bag_of_words_batch_size=8, max_steps=30, save_steps=25, eval_steps=25)
    train(settings(pairs, tmp_path, generation_size=0, **flags))
    out = capsys.readouterr().out
    plan = (
        "a warm-up on words of 30 updates of 8 texts, which an interruption loses; then 30 updates of 4 texts, saved"
    )
    assert out.count(plan) == 1
    assert out.count("9 updates of the warm-up on words are left: about ") == 1
    assert out.count("\n9 updates are left: about ") == 1
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    lowest = min(line["validation/loss"] for line in lines if "validation/loss" in line)
    best = f"saved: {tmp_path / 'best'} has the lowest validation loss, {lowest:.4g}"
    assert out.splitlines()[-1] == f"{best}; {tmp_path / 'last'} is of update 30"
    train(settings(pairs, tmp_path, generation_size=0, **flags | {"max_steps": 31}))
    assert "warm-up on words" not in capsys.readouterr().out  # a run that goes on has none


def test_a_warm_up_longer_than_the_run_is_told(pairs, tmp_path, caplog):
    """18 updates with the default warm-up of 2,000: the rate stayed at a hundredth of what was asked for."""
    caplog.set_level(logging.WARNING)
    train(settings(pairs, tmp_path, max_steps=2, warmup_steps=200, learning_rate=1e-4, generation_size=0))
    (told,) = [record.getMessage() for record in caplog.records if "warmup_steps" in record.getMessage()]
    assert told.endswith(
        "warmup_steps 200 are more than max_steps 2: the learning rate never comes beyond 1e-06 of 0.0001. Set "
        "fewer warmup_steps."
    )
    caplog.clear()
    train(settings(pairs, tmp_path / "enough", max_steps=3, warmup_steps=2, generation_size=0))
    assert not any("warmup_steps" in record.getMessage() for record in caplog.records)
