"""How a command ends: its exit status, and the one line on stderr when it did not succeed."""

import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..data.files import FullDiskError, writing
from ..errors_embinv import EmbInvError
from ..progress.rates import speed, texts
from .interrupts import no_interrupt_lost
from .launcher import is_launched

USER_ERROR, INCOMPLETE, INTERRUPTED, BROKEN_PIPE = 2, 3, 130, 141


def epilog(examples: str, incomplete: str = "") -> str:
    """What a command's help ends with: examples, a line each, and the exit status.

    Args:
        incomplete: what status 3 says of this command; "" = it has none.
    """
    status = ["0 done", "1 a bug, with a traceback", "2 a mistake in the command or its input"]
    status += [f"3 {incomplete}"] * bool(incomplete) + ["130 Ctrl-C", "143 SIGTERM"]
    lines = [f"  {line.strip()}" for line in examples.strip().splitlines()]
    return "\n".join(["examples:", *lines, "", "exit status:", *(f"  {one}" for one in status)])


def outcome(name: str, arguments: Sequence[str], run: Callable[[], int | None]) -> int:
    """Runs a command; what its user did wrong is one line on stderr, while a bug is a traceback.

    Args:
        name: what the line begins with.
        arguments: of the command line; `--debug` among them shows the traceback of a user's error, too.
        run: the command; it may return an exit status of its own.

    Returns:
        The exit status: the command's own, or 0; 2 for an `EmbInvError` or an `OSError`; 130 after Ctrl-C; 141 when
        nobody reads the output; 143 after SIGTERM and 129 after SIGHUP, which end a command as Ctrl-C does.
    """
    _print_anything()
    with warnings.catch_warnings(), _counted_interrupts():
        warnings.showwarning = lambda message, *_, **__: _warn(str(message))
        try:
            status = run()
            with writing("standard output"):
                sys.stdout.flush()
        except BaseException as error:
            if _is_interrupt(error):
                _say(name, f"interrupted. {_sentence_of(error) or 'Nothing was saved.'}")
                return 128 + _interrupts[0] if _interrupts else INTERRUPTED
            if isinstance(error, BrokenPipeError):  # as in `embinv … | head`
                _drop_output()
                return BROKEN_PIPE
            if not isinstance(error, EmbInvError | OSError):
                raise
            if "--debug" in arguments:
                traceback.print_exc()
            kept = getattr(error, "__notes__", [])  # by `on_interrupt`
            _say(name, ". ".join([str(error) or type(error).__name__, *kept]))
            try:
                sys.stdout.flush()
            except OSError:  # it was the output that is full
                _drop_output()
            return USER_ERROR
    return status or 0


def _drop_output() -> None:
    """Drops what standard output did not take: Python would try again at the end, and give a status of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_anything() -> None:
    """Shows a question mark for what the encoding of an output does not have, where that would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


# signals that ended this command: a library that is being imported makes another error of their exception
_interrupts: list[int] = []
# what a new process does with those that end it
_DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGHUP"):  # a terminal is closed; Windows has none
    _DEFAULTS[signal.SIGHUP] = signal.SIG_DFL


@contextmanager
def _counted_interrupts() -> Iterator[None]:
    def note(number: int, _: Any) -> None:
        if number != signal.SIGINT and number in _interrupts:  # `timeout` sends it twice; the end has begun
            return
        _interrupts.append(number)
        raise KeyboardInterrupt

    _interrupts.clear()
    plain = _plain_signals()
    for number in plain:
        signal.signal(number, note)
    try:
        with no_interrupt_lost(_interrupts) if plain else nullcontext():
            yield
    finally:
        for number in plain:
            signal.signal(number, _DEFAULTS[number])


def _plain_signals() -> list[int]:
    """The signals that end this process and that nobody else looks after."""
    if threading.current_thread() is not threading.main_thread():
        return []
    plain = [number for number, handler in _DEFAULTS.items() if signal.getsignal(number) == handler]
    # a launcher ends its processes by SIGTERM, and one that waits for the others would answer it too late
    return [number for number in plain if number == signal.SIGINT or not is_launched()]


def _is_interrupt(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt) or (bool(_interrupts) and isinstance(error, Exception))


def _sentence_of(error: BaseException) -> str:
    """What `on_interrupt` has put into an interruption, or ""."""
    return str(error) if isinstance(error, KeyboardInterrupt) else ""


@contextmanager
def on_interrupt(sentence: Callable[[], str]) -> Iterator[None]:
    """Gives a Ctrl-C or a full disk within the `with` block the sentence that says what the command leaves behind.

    Args:
        sentence: called at the interruption; "" = what a block around this one says; of a Ctrl-C, if there is none,
            that nothing was saved.
    """
    try:
        yield
    except FullDiskError as error:
        if not hasattr(error, "__notes__") and (said := sentence()):
            error.add_note(said)
        raise
    except BaseException as error:
        if not _is_interrupt(error) or _sentence_of(error) or not (said := sentence()):
            raise
        raise KeyboardInterrupt(said) from error


def incomplete(left_out: int) -> int | None:
    """The exit status of a command that left so many rows out.

    Of a launcher's process it is 0: a launcher takes any other for a failure, ends the others, and shows a traceback.
    """
    return INCOMPLETE if left_out and not is_launched() else None


def summary(stats: dict[str, Any], out: str | None, cause: str) -> str:
    """What a run over a file of vectors made, in a line; a second one warns where most of it is worth nothing.

    Args:
        stats: as `invert_file` returns them. out: the file of the texts; None or "-" = they were printed.
        cause: what else may be the matter where most texts have nothing to do with their vectors.
    """
    found, rate = texts(stats["vectors"]), speed(stats["vectors_per_second"])
    unrelated, total = stats["verdicts"]["unrelated"], stats["verdicts"].total()
    verdicts = ", ".join(f"{number:,} {name}" for name, number in stats["verdicts"].most_common())
    resumed = f"; {stats['resumed']:,} of them by an earlier run" if stats["resumed"] else ""
    wrote = f"{found} ({rate})" if out in (None, "-") else f"wrote {found} to {out} ({rate}){resumed}"
    line = f"embinv: {wrote}{f': {verdicts}' if verdicts else ''}."
    if 2 * unrelated <= total:
        return line
    are = "text is unrelated to its vector" if total == 1 else "texts are unrelated to their vectors"
    what = f"another encoder's or strongly changed vectors, or {cause}"
    return f"{line}\nembinv: warning: {unrelated:,} of {total:,} {are}: {what}"


def saved_parts(out: str | None, total: int | None = None, began: float = 0.0) -> str:
    """What an interrupted run leaves, in a sentence: the texts of its finished parts; "" if there are none.

    Args:
        total: rows of the source, where they are known.
        began: when the run did; an output that is younger is this run's.
    """
    if out in (None, "-"):
        return ""
    path = Path(out)
    folder = path.with_name(f"{path.name}.parts")
    count = 0
    for part in folder.glob("*.jsonl"):
        with part.open("rb") as lines:
            count += sum(1 for _ in lines)
    if not count:
        is_written = began and path.exists() and path.stat().st_mtime >= began
        return f"All texts are in {out}." if is_written else ""
    of = texts(count) if total is None else f"{count:,} of {total:,} vectors"
    return f"{of} {'is' if of == '1 text' else 'are'} saved in {folder}; run the same command to resume."


def _warn(message: str) -> None:
    start = "\r\x1b[K" if sys.stderr.isatty() else ""  # in place of a bar, which is drawn anew
    sys.stderr.write(f"{start}embinv: warning: {message}\n")


def _say(name: str, message: str) -> None:
    if "tqdm" in sys.modules:  # a bar that was interrupted still has the terminal's line
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()
    # written at once: a launcher's processes share a terminal
    sys.stderr.write(f"{name}: {' '.join(message.split())}\n")
