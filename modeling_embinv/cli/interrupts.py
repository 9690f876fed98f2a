"""Python drops a Ctrl-C that comes while an object is deleted; it is sent again."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_interrupt_lost(received: list[int]) -> Iterator[None]:
    """Sends this process once more each signal whose `KeyboardInterrupt` Python has ignored.

    Args:
        received: the signals that have come, where the handlers of the `with` block note them; one that is sent again
            is taken out. Empty = it was SIGINT.
    """

    def send_again(lost: Any) -> None:
        if lost.exc_type is not KeyboardInterrupt:
            before(lost)
            return
        # what is raised in here would be ignored, too
        while True:
            try:
                number = received.pop() if received else signal.SIGINT
                threading.Timer(0.01, os.kill, [os.getpid(), number]).start()
                return
            except KeyboardInterrupt:  # on a busy machine it comes before this function has ended
                continue

    before = sys.unraisablehook
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before
