"""Work on a thread of its own, whose items arrive as they are made, and which stops once nobody waits for it."""

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, Queue
from typing import Any

from modeling_embinv.errors_embinv import EmbInvError

LONGEST_SECONDS = 300  # for one run; others wait
HEARTBEAT_SECONDS = 1.0
LAST_PASS_SECONDS = 10  # how long Python waits at its end for a forward pass
THREAD = "embinv: run"


class TookTooLong(EmbInvError):
    """A run was ended by the time limit; what it has put so far holds."""


class VisitorLeft(Exception):
    """Nobody waits for this text any longer."""


class Watch(threading.local):
    """When the model must stop, on this thread: after a time, or once the visitor has left."""

    deadline = float("inf")
    left: threading.Event | None = None

    def check(self, *_: Any) -> None:
        """Hook before each forward pass.

        Raises:
            VisitorLeft, TimeoutError: at a pass that nobody waits for, or that comes too late.
        """
        if self.left is not None and self.left.is_set():
            raise VisitorLeft
        if time.monotonic() > self.deadline:
            raise TimeoutError


class Run(threading.Thread):
    """A thread that the model works on; `left` is set once nobody waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, name=THREAD, daemon=True)
        self.left = threading.Event()


@atexit.register
def stop_all() -> None:
    """Every run stops at its next forward pass: Python aborts if it ends while a thread computes in torch."""
    runs = [thread for thread in threading.enumerate() if isinstance(thread, Run)]
    for run in runs:
        run.left.set()
    for run in runs:
        run.join(LAST_PASS_SECONDS)


class Clock:
    """Seconds since it was made, on the thread that works: what the page does meanwhile does not count."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self) -> float:
        """The seconds so far."""
        return time.perf_counter() - self.start


def streamed(watch: Watch, work: Callable[[Callable[[Any], None]], Any], advice: str) -> Iterator[tuple[bool, Any]]:
    """What `work` puts while it runs on a thread of its own, as (False, item), then (True, what it returns).

    (False, None) comes each second without an item. Once the generator is closed, or after `LONGEST_SECONDS`, the
    model stops at its next forward pass.

    Args:
        watch: of the model.
        work: is given `put`, for one item.
        advice: how a run gets shorter, for the message.

    Raises:
        TookTooLong: for a run that was ended; besides, whatever `work` raises.
    """
    queue: Queue[tuple[bool, Any]] = Queue()
    deadline = time.monotonic() + LONGEST_SECONDS

    def run_work() -> None:
        watch.left, watch.deadline = run.left, deadline
        try:
            queue.put((True, work(lambda item: queue.put((False, item)))))
        except Exception as error:  # handed on to whoever reads the items
            queue.put((True, error))

    run = Run(run_work)
    run.start()
    is_last = False
    try:
        while not is_last:
            try:
                is_last, item = queue.get(timeout=HEARTBEAT_SECONDS)
            except Empty:
                item = None
            if isinstance(item, Exception):
                if time.monotonic() > deadline:
                    raise TookTooLong(f"Stopped after {LONGEST_SECONDS} seconds: {advice}.") from None
                raise item
            yield is_last, item
    finally:
        run.left.set()
