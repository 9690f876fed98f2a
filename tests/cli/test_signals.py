"""What SIGTERM and SIGHUP leave behind: `timeout`, `docker stop` or a closed terminal end a command so."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modeling_embinv.cli import outcome

ROOT = Path(__file__).parents[2]
OF_NO_LAUNCH = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
# `nohup make test` has them ignored in all that it starts
ANSWERING = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
PIPED = """
import sys
from modeling_embinv.cli import command
sys.exit(command())
"""
COPIED = """
import sys
from pathlib import Path
from modeling_embinv.cli.outcome import on_interrupt, outcome
from modeling_embinv.stores.copies import copy_of
def run():
    with on_interrupt(lambda: "12 texts are saved."):
        copy = copy_of("store", [Path(sys.argv[3])], Path(sys.argv[3]))
        sys.stdin.read()
sys.exit(outcome("embinv invert", [], run))
"""
IGNORED = """
import sys
from modeling_embinv.cli.outcome import outcome
sys.exit(outcome("embinv invert", [], lambda: signal.raise_signal(signal.SIGHUP) or 7))
"""
SAID = {
    PIPED: "embinv invert: interrupted. Nothing was saved.\n",
    COPIED: "embinv invert: interrupted. 12 texts are saved.\n",
}


@pytest.fixture
def store(tmp_path) -> Path:
    """A folder with a file, as a store is one."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "input").write_bytes(b"numbers")
    return folder


def terminated(
    code: str, store: Path, number: int = signal.SIGTERM, **environment: str
) -> tuple[int, str, list[Path]]:
    """Ends a command that waits for its standard input, once its copy lies there: status, stderr, what it leaves."""
    temporary = store.parent / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", ANSWERING + code, "invert", "-", str(store)][: -1 if code is PIPED else None]
    environment = {**OF_NO_LAUNCH, "TMPDIR": str(temporary), **environment}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        while process.poll() is None and not list(temporary.glob("*/input")):
            time.sleep(0.01)
        process.send_signal(number)
        process.wait()
        return process.returncode, process.stderr.read(), list(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("code", [PIPED, COPIED], ids=["standard_input", "copy"])
def test_no_copy_is_left(code, store, number):
    """A confidential store stayed in the temporary folder, and what was saved was not said."""
    assert terminated(code, store, number) == (128 + number, SAID[code], [])


def test_nohup_goes_on(store):
    """A command that was told to ignore a closed terminal ended with it."""
    ignored = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{IGNORED}"
    done = subprocess.run([sys.executable, "-c", ignored], cwd=ROOT, env=OF_NO_LAUNCH, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")


def test_sigterm_of_a_process_of_a_launch(store):
    """One that waits for the others of its run cannot answer a signal: the launcher waited, and then killed them."""
    status, said, _ = terminated(COPIED, store, LOCAL_RANK="0")
    assert (status, said) == (-signal.SIGTERM, "")


RAISED = """
import os, signal, sys, threading, time
from modeling_embinv.cli.outcome import outcome
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
number = getattr(signal, sys.argv[1])
class Deleted:
    def __del__(self):
        signal.raise_signal(number)
def deleted():
    Deleted()
    time.sleep(60)
def imported():
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt as error:
        raise ImportError("torch") from error
def twice():
    try:
        signal.raise_signal(number)
    finally:
        signal.raise_signal(number)
status = outcome("embinv invert", [], globals()[sys.argv[2]])
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
sys.exit(status)
"""


@pytest.mark.parametrize("where", ["deleted", "imported", "twice"])
@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_at_a_bad_moment(name, status, where):
    """Python ignores an exception while it deletes an object; a library that is imported makes another one of it.

    `timeout` sends its signal twice: the second must not cut off the end that the first began. Nor may what called the
    command be left with handlers that are not its own.
    """
    command = [sys.executable, "-c", RAISED, name, where]
    done = subprocess.run(command, cwd=ROOT, env=OF_NO_LAUNCH, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "embinv invert: interrupted. Nothing was saved.\n")


def test_handlers_of_somebody_else_stay():
    """A program that calls a command and looks after signals itself would no longer get them."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        assert outcome.outcome("embinv invert", [], lambda: signal.raise_signal(signal.SIGTERM)) == 0
        in_a_thread = threading.Thread(target=lambda: seen.append(outcome.outcome("embinv invert", [], lambda: 5)))
        in_a_thread.start()
        in_a_thread.join()
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: one that Python does not know
    assert seen == [signal.SIGTERM, 5]
