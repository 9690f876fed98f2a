"""What a long run says of its progress where no terminal shows a bar."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from modeling_embinv.hypotheses_embinv import SearchRound
from modeling_embinv.progress.bar import RowBar, stage


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A list whose only number is the time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr("modeling_embinv.progress.bar.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_has_a_line_now_and_then(clock, capsys):
    """A CI job of hours looked as if it hung: its log had no line until the end, and later none of when that is."""
    for show in (True, False):
        with RowBar(300, show) as bar:
            for _ in bar.counted("abc"):
                clock[0] += 61
        left = ["5:03:59", "5:02:58", "5:01:57"]
        lines = [f"embinv: {count} of 300 vectors, {time} left" for count, time in enumerate(left, 1)]
        assert capsys.readouterr().err.splitlines() == lines * show


def test_the_time_left_is_that_of_this_run(clock, capsys):
    """An earlier run's vectors would make this one twice as fast, and before the first vector nobody knows."""
    with RowBar(12, show=True) as bar:
        bar.resume(6)
        clock[0] += 60
        bar.reach(6)
        clock[0] += 60
        bar.show_round(SearchRound(4, 5, torch.arange(3), torch.ones(3, 4), torch.ones(3), None), 3)
    with RowBar(1, show=True) as bar:
        for _ in bar.counted("a"):
            clock[0] += 60
    assert capsys.readouterr().err.splitlines() == [
        "embinv: 6 of 12 vectors",
        "embinv: 8 of 12 vectors, round 4 of 5, 04:00 left",
        "embinv: 1 of 1 vector",
    ]


def test_one_of_several_bars_has_a_name(clock, monkeypatch, capsys):
    """Of an evaluation's four bars nobody knew which one was the floor."""
    with RowBar(2, show=True, name="floor: no vector") as bar:
        clock[0] += 61
        bar.reach(1)
    assert capsys.readouterr().err == "embinv: floor: no vector: 1 of 2 vectors, 01:01 left\n"
    monkeypatch.setattr("sys.stderr", Terminal())
    with RowBar(2, show=True, name="floor: no vector"):
        assert re.search(r"\rfloor: no vector:   0 % *\|", sys.stderr.getvalue())


def test_a_log_is_not_full_of_lines(capsys):
    """A line for each round of a search is hundreds of lines a minute."""
    with RowBar(1000, show=True) as bar:
        assert len(list(bar.counted(range(1000)))) == 1000
    assert not capsys.readouterr().err


def test_rounds_of_a_single_vector_are_shown(monkeypatch):
    """The bar stood at "starting" for all of a search: it moved by whole vectors only."""
    monkeypatch.setattr("sys.stderr", Terminal())
    with RowBar(1, show=True) as bar:
        bar.mininterval = 0
        for number in range(1, 6):
            bar.show_round(SearchRound(number, 5, torch.arange(1), torch.ones(1, 4), torch.ones(1), None), 1)
        shown = sys.stderr.getvalue()
    assert re.findall(r"(\d+) %[^%]* 0 of 1 vector, round (\d) of 5", shown) == [
        ("17", "1"), ("33", "2"), ("50", "3"), ("67", "4"), ("83", "5"),
    ]  # fmt: skip


def test_a_stage_says_when_it_begins_and_how_long_it_took(monkeypatch, capsys):
    """Of two stages nobody knew which of them the job was killed in; one that failed must not look finished.

    At a terminal an audit with defences showed a dozen bars, and not what each of them was about.
    """
    with stage("reading the store"):
        assert capsys.readouterr().err == "embinv: reading the store …\n"
    assert re.fullmatch(r"embinv: reading the store: \d+ s\n", capsys.readouterr().err)
    with pytest.raises(KeyError), stage("reading"):
        raise KeyError
    assert capsys.readouterr().err == "embinv: reading …\n"
    for show, stream, said in ((False, io.StringIO(), ""), (True, Terminal(), "embinv: reading …\n")):
        monkeypatch.setattr("sys.stderr", stream)
        with stage("reading", show):
            pass
        assert stream.getvalue() == said


def test_candidates_alone_have_no_rounds(capsys, monkeypatch):
    """A bar of candidates that a judge chooses among said "round 0 of 0"."""
    monkeypatch.setattr("modeling_embinv.progress.bar.LINE_SECONDS", 0.0)
    with RowBar(2, show=True) as bar:
        bar.show_round(SearchRound(0, 0, torch.arange(2), torch.ones(2, 4), torch.ones(2), None), 2)
    assert capsys.readouterr().err == "embinv: 0 of 2 vectors\n"
