"""Percentiles, memory and the processor time of others, from /proc."""

from __future__ import annotations

import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, Self, TypeVar

from bloomery.processes.machine import table_bytes

T = TypeVar("T")
_TICKS = os.sysconf("SC_CLK_TCK")
# user, nice, system, irq, softirq, steal of /proc/stat's first line; idle and iowait are not work.
_BUSY = (0, 1, 2, 5, 6, 7)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: always one of the values, so that P99 of five calls is the slowest call and not a guess."""
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def in_order(contestants: Sequence[T], turn: int) -> list[T]:
    """Who goes after whom in a round: another one begins each, and every second one runs backwards. Whoever always
    followed the same neighbour would always inherit his caches and his free memory.
    """
    start = turn % len(contestants)
    order = [*contestants[start:], *contestants[:start]]
    return order[::-1] if turn % 2 else order


class Timed(Protocol):
    """One run. ``wall_seconds``: from its start to its end."""

    @property
    def wall_seconds(self) -> float: ...


class Runs:
    """What can be said of several runs; for a dataclass that has them."""

    runs: Sequence[Timed]

    @property
    def seconds(self) -> float:
        """The median."""
        return median(run.wall_seconds for run in self.runs)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        walls = [run.wall_seconds for run in self.runs]
        return (max(walls) - min(walls)) / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        mine: Any = self  # a dataclass, whichever it is
        return asdict(mine) | {"seconds": self.seconds, "spread": self.spread}


def anonymous_bytes(pid: int) -> int:
    """RssAnon: what the process itself allocated. RSS would count mapped checkpoint files, which cost nothing."""
    return table_bytes(f"/proc/{pid}/status", "RssAnon")


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


class _Sampler(ABC):
    """Calls ``sample`` at once and again and again, in a thread, while the block runs."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @abstractmethod
    def sample(self) -> None:
        """Look once."""

    def _run(self) -> None:
        while True:
            self.sample()
            if self._stop.wait(self._interval):
                return


class PeakMemory(_Sampler):
    """Samples each process's RssAnon while the block runs; ``peaks`` holds the largest, in the order of the ids."""

    def __init__(self, pids: Iterable[int], interval: float = 0.02) -> None:
        super().__init__(interval)
        self._pids = list(pids)
        self.peaks = [0] * len(self._pids)

    def sample(self) -> None:
        """Of each process."""
        self.peaks = [max(peak, anonymous_bytes(pid)) for peak, pid in zip(self.peaks, self._pids, strict=True)]


class TreePeak(_Sampler):
    """Samples the resident memory of a process and all below it while the block runs; ``bytes`` is the largest sum.

    ru_maxrss would not do: a child begins with its parent's, and it knows only the largest single process.
    """

    def __init__(self, pid: int, interval: float = 0.02) -> None:
        super().__init__(interval)
        self._pid = pid
        self.bytes = 0

    def sample(self) -> None:
        """Of the whole tree."""
        tree = [self._pid, *descendants(self._pid)]
        self.bytes = max(self.bytes, sum(table_bytes(f"/proc/{pid}/status", "VmRSS") for pid in tree))


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds of processor time used since the machine started: by everybody, and by the processes given."""

    wall: float
    everybody: float
    ours: float

    @classmethod
    def now(cls, pids: Iterable[int]) -> ProcessorTime:
        """Read the clocks. ``pids`` must outlive the measurement, or their time counts as somebody else's."""
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        busy = sum(int(fields[index]) for index in _BUSY) / _TICKS
        return cls(time.monotonic(), busy, sum(_used(pid) for pid in pids))


def share_of_others(before: ProcessorTime, after: ProcessorTime, cores: int | None = None) -> float:
    """Which part of all cores' time, 0 to 1, went to processes that are not ours."""
    capacity = (after.wall - before.wall) * (cores or os.cpu_count() or 1)
    others = (after.everybody - before.everybody) - (after.ours - before.ours)
    return min(1.0, max(0.0, others / capacity)) if capacity > 0 else 0.0


def _used(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
