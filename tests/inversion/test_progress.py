"""What a long run says of its progress where no terminal shows a bar."""

import io
import re

import pytest

from modeling_embinv.inversion import progress
from modeling_embinv.inversion.progress import VectorBar, stage


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    """A CI job of hours looked as if it hung: its log had no line until the end."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with VectorBar(3, show=True) as bar:
        assert list(bar.counted("ab")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["embinv: 1 of 3 vectors", "embinv: 2 of 3 vectors"]
    with VectorBar(3, show=False) as bar:
        assert list(bar.counted("ab")) == ["a", "b"]
    assert not capsys.readouterr().err


def test_a_log_is_not_full_of_lines(capsys):
    """A line for each round of a search is hundreds of lines a minute."""
    with VectorBar(1000, show=True) as bar:
        assert len(list(bar.counted(range(1000)))) == 1000
    assert not capsys.readouterr().err


def test_a_stage_says_when_it_begins_and_how_long_it_took(monkeypatch, capsys):
    """Of two stages nobody knew which of them the job was killed in; one that failed must not look finished."""
    with stage("reading the store"):
        assert capsys.readouterr().err == "embinv: reading the store …\n"
    assert re.fullmatch(r"embinv: reading the store: \d+ s\n", capsys.readouterr().err)
    with pytest.raises(KeyError), stage("reading"):
        raise KeyError
    assert capsys.readouterr().err == "embinv: reading …\n"
    for show, stream in ((False, io.StringIO()), (True, Terminal())):
        monkeypatch.setattr("sys.stderr", stream)
        with stage("reading", show):
            pass
        assert not stream.getvalue()
