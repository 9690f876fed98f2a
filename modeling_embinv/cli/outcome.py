"""How a command ends: its exit status, and the one line on stderr when it did not succeed."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..errors_embinv import EmbInvError

USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def outcome(name: str, arguments: Sequence[str], run: Callable[[], None]) -> int:
    """Runs a command; what its user did wrong is one line on stderr, while a bug is a traceback.

    Args:
        name: what the line begins with.
        arguments: of the command line; `--debug` among them shows the traceback of a user's error, too.
        run: the command.

    Returns:
        The exit status: 0; 2 for an `EmbInvError` or an `OSError`; 130 after Ctrl-C; 141 when nobody reads the output.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"embinv: warning: {message}", file=sys.stderr)
        try:
            run()
            sys.stdout.flush()
        except BrokenPipeError:  # as in `embinv … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except (EmbInvError, OSError) as error:
            if "--debug" in arguments:
                traceback.print_exc()
            _say(name, str(error) or type(error).__name__)
            return USER_ERROR
        except KeyboardInterrupt as error:
            _say(name, f"interrupted. {error if error.args else 'Nothing was saved.'}")
            return INTERRUPTED
    return 0


@contextmanager
def on_interrupt(sentence: Callable[[], str]) -> Iterator[None]:
    """Gives a Ctrl-C within the `with` block the sentence that says what the command leaves behind.

    Args:
        sentence: called at the interruption; "" = what a block around this one says, or that nothing was saved.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args or not (said := sentence()):
            raise
        raise KeyboardInterrupt(said) from error


def _say(name: str, message: str) -> None:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
