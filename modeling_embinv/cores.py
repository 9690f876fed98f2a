"""The cores that this process may use, where a container has fewer than the machine, and those that are idle.

OpenMP starts a thread for each core that it sees, most often all of the machine's. Where a control group's quota is
smaller, as with `docker run --cpus 1`, its threads wait for each other and spend the quota on it: on two cores with a
quota of one, a search took five times as long as with one thread. OpenMP reads its setting when PyTorch is loaded, so
this file imports nothing of it.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

# where Linux shows the control groups, and the file that says which of them are this process's
GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def threads_of_quota() -> dict[str, str]:
    """For the environment, before PyTorch is loaded: no more threads than the quota has whole cores, at least one.

    Returns:
        `OMP_NUM_THREADS`; nothing where it is set already, or no quota is smaller than what OpenMP sees.
    """
    cores = quota(GROUPS, OWN)
    if "OMP_NUM_THREADS" in os.environ or cores is None or cores >= _visible():
        return {}
    return {"OMP_NUM_THREADS": str(max(1, int(cores)))}


class IdleCores:
    """Measures how many cores are idle, on average, from its making on; its process counts among the busy ones."""

    def __init__(self) -> None:
        self._began, self._idle = time.monotonic(), _idle_seconds()

    def threads(self, most: int) -> int:
        """How many threads have a core to themselves: one, and one for each idle core; at most `most`.

        Threads that share a core wait for each other: beside one other program on two cores, a search with two threads
        took 2.3 times as long as with one. All are taken where the machine does not tell, and within a second, which
        is too short to measure.
        """
        seconds, idle = time.monotonic() - self._began, _idle_seconds()
        if seconds < 1 or idle is None or self._idle is None:
            return most
        return min(most, 1 + round((idle - self._idle) / seconds))


def _idle_seconds() -> float | None:
    """Seconds that the cores of this process have been idle since the machine was started; None = it is hidden."""
    import psutil  # here, as the help of a command does without

    try:
        cores = psutil.cpu_times(percpu=True)
    except OSError:  # a sandbox without /proc/stat
        return None
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(cores))
    return sum(cores[one].idle + getattr(cores[one], "iowait", 0.0) for one in own if one < len(cores))


def _visible() -> int:
    """The cores that OpenMP sees: those that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(groups: Path, own: Path) -> float | None:
    """The smallest quota of a process's control groups, in cores; None without one.

    Args:
        groups: the folder of all groups, of either version. own: a line for each of the process's, as the kernel
            writes them: "hierarchy:controllers:place", without controllers in version 2.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux, or hidden
        return None
    quotas = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            top = groups / "cpu" if controllers else groups
            quotas += [cores for folder in _upwards(top, place) if (cores := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _upwards(top: Path, place: str) -> Iterator[Path]:
    """A group's folder and all above it. Inside a container its own stands at the top, wherever `place` says."""
    folder = top / place.lstrip("/")
    yield from (folder, *folder.parents[: len(folder.parts) - len(top.parts)])


def _quota_of(folder: Path) -> float | None:
    """Cores of one group, by its quota and period in microseconds; None where it sets none."""
    try:
        if (folder / "cpu.max").exists():
            given, period = (folder / "cpu.max").read_text().split()
        else:
            given, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cores = int(given) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None
    return cores if cores > 0 else None
