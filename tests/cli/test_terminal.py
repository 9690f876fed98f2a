"""The demo in a real terminal: a pseudo-terminal of 80 or 40 columns, whose screen pyte keeps."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import traceback
from collections.abc import Iterator

import pytest
import torch

from modeling_embinv.cli.main import main
from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.tiny_models import awaken
from tests.training.tiny_runs import TINY_TRUNK

pyte = pytest.importorskip("pyte")
ROWS = 24
SENTENCE = "A red kite flies over the old town, and children look at it."
LOOP = ["--num-candidates", "2", "--num-corrections", "2", "--num-proposals", "4", "--num-beams", "2"]


@pytest.fixture(scope="module")
def searching(tmp_path_factory, encoder) -> str:
    """A tiny checkpoint of the real encoder, with a surrogate."""
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    torch.manual_seed(0)
    name = "sentence-transformers/all-MiniLM-L6-v2"
    model = new_inverter(tokenizer, TINY_TRUNK, embedding_dim=384, max_sequence_length=16, encoder_id=name)
    model.add_surrogate(2)
    return str(export(awaken(model).eval(), tokenizer, tmp_path_factory.mktemp("terminal") / "model"))


def watched(arguments: list[str], columns: int, **environment: str) -> tuple[bytes, list[list[str]]]:
    """What a command sends to a terminal of so many columns, and every screen that somebody before it sees."""
    child, terminal = pty.fork()
    if not child:
        try:
            for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):  # they outrank the terminal
                os.environ.pop(name, None)
            os.environ.update({"TERM": "xterm-256color", **environment})
            size = struct.pack("HHHH", ROWS, columns, 0, 0)
            fcntl.ioctl(1, termios.TIOCSWINSZ, size)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "rw"[number > 0]) for number in range(3))
            status = main(arguments)
            sys.stdout.flush()
            os._exit(status)
        except BaseException:
            os.write(1, traceback.format_exc().encode())
            os._exit(70)
    raw = b""
    while part := _read(terminal):
        raw += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, raw.decode(errors="replace")
    return raw, list(_screens(raw, columns))


def _screens(raw: bytes, columns: int) -> Iterator[list[str]]:
    """The lines of the terminal, those above its screen included, before each time that some are erased, and last."""
    screen = pyte.HistoryScreen(columns, ROWS, history=500, ratio=1)
    stream = pyte.ByteStream(screen)
    for part in re.split(rb"(?=\r\x1b\[2K)", raw):
        stream.feed(part)
        lines = ["".join(line[column].data for column in range(columns)).rstrip() for line in screen.history.top]
        lines += [line.rstrip() for line in screen.display]
        yield lines


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells that the other end is closed
        return b""


@pytest.mark.parametrize("columns", [80, 40])
def test_the_demo_in_a_terminal(searching, columns):
    """Words broken at the edge, a line that its rounds leave behind, and seconds without a sign of life."""
    raw, screens = watched(["demo", SENTENCE, "--feedback", "surrogate", *LOOP, "--model", searching], columns)
    seen = {line.strip() for lines in screens for line in lines}
    waits = {"Loading the checkpoint and the encoder …", "filling the gaps …"}
    assert {*waits, *(f"round {number} of 2" for number in range(3))} <= seen
    last = [line for line in screens[-1] if line]
    text = " ".join(" ".join(last).split())
    assert not any(word in text for word in ("Loading", "round", "filling"))  # all are erased
    assert f"original {SENTENCE}" in text  # between its words alone is a text wrapped
    for part in ("content words recovered", "1 vector in", "Colours: at least 90 % sure, at least 50 %, below 50 %."):
        assert part in text
    labels = [line.split()[0] for line in last if not line.startswith(" ")]
    order = [label for label in labels if label in ("original", "draft", "refined", "surrogate", "redacted", "filled")]
    assert order[:6] == ["original", "draft", "refined", "surrogate", "redacted", "filled"]
    assert b"\x1b[3" in raw  # tints


def test_a_terminal_without_colours_and_a_dumb_one(searching):
    """Codes that a terminal shows as they are, and a ladder that cannot be read without colours."""
    command = ["demo", SENTENCE, "--feedback", "surrogate", *LOOP, "--model", searching]
    plain, screens = watched(command, 80, NO_COLOR="1")
    assert not any(b"\x1b[3%d" % colour in plain for colour in range(1, 8)) and "round 1 of 2" in str(screens)
    assert "Colours" not in str(screens[-1])  # a legend of nothing
    dumb, screens = watched(command, 80, TERM="dumb")
    assert b"\x1b" not in dumb and "surrogate" in str(screens[-1])
