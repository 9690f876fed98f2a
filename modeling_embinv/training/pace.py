"""How long updates will take, said once, so that nobody waits for weeks unawares."""

import time
from collections.abc import Callable

# updates that are timed, or fewer where each takes long: then those of so many seconds
_TIMED_UPDATES, _FEWEST, _SECONDS = 20, 2, 60.0
_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0))


class Pace:
    """Times the first updates and says how long those that are left will take.

    The first update is not counted: it compiles what later ones run.

    Args:
        total: updates of the run.
        say: takes the line; None = it is nobody's to say, as in the second process of a run.
        kind: what the updates are called in the line.
        clock: seconds.

    Attributes:
        is_said: the line has been said, and nothing is timed any longer.
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None] | None,
        kind: str = "updates",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._total, self._say, self._kind, self._clock = total, say, kind, clock
        self._first: tuple[int, float] | None = None
        self.is_said = False

    def note(self, done: int, once: float = 0.0, ahead: float | None = 0.0) -> None:
        """Call it after each update.

        Args:
            done: updates that are done.
            once: seconds so far of work among them that is done once for many updates.
            ahead: seconds of such work that are still to come; None = nobody knows yet, and nothing is said.
        """
        if self.is_said:
            return
        if self._first is None:
            self._first = done, self._clock() - once
            return
        timed, seconds = done - self._first[0], self._clock() - once - self._first[1]
        is_timed = timed >= _TIMED_UPDATES or (timed >= _FEWEST and seconds >= _SECONDS)
        if is_timed and ahead is not None:
            left = self._total - done
            if left and self._say:
                needed = duration(left * seconds / timed + ahead)
                self._say(f"{left:,} {self._kind} are left: about {needed} at this rate")
            self.is_said = True

    def pause(self, seconds: float) -> None:
        """Leave out a time in which no update was done."""
        if self._first is not None:
            self._first = self._first[0], self._first[1] + seconds


def duration(seconds: float) -> str:
    """A length of time in the largest unit of which it has two, as "3.4 hours"."""
    name, unit = next((known for known in _UNITS if seconds >= 2 * known[1]), ("seconds", 1.0))
    count = seconds / unit
    return f"{count:.1f} {name}" if count < 10 and name != "seconds" else f"{count:,.0f} {name}"
