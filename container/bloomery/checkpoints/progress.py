"""How far a transfer or a load is: for the log, for the server that asks this rank, and for a bar on a terminal."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from bloomery.processes import rank

log = logging.getLogger(__name__)

LOG_SECONDS = 5.0
_RANK_SECONDS = 0.2


class Progress:
    """Counts bytes, from any thread, and tells of them: the control channel at most five times a second, the log every
    few seconds, because a log is all that an operator of an endpoint sees while it is being created.
    """

    def __init__(
        self,
        phase: str,
        total: int,
        *,
        what: str = "",
        done: int = 0,
        every: float = LOG_SECONDS,
        seen: Callable[[int, int], object] | None = None,
    ) -> None:
        """``done`` of ``total`` bytes are there already and count for no rate. ``what`` follows ``phase`` in the log.
        ``seen`` hears of done and total as often as the control channel.
        """
        self._phase, self._label = phase, f"{phase} {what}".rstrip()
        self._total, self._begin, self._done, self._every, self._seen = total, done, done, every, seen
        self._lock = threading.Lock()
        self._start = self._told = self._logged = self._came = time.monotonic()

    @property
    def came(self) -> int:
        """Bytes that were counted, without those that were there before."""
        return self._done - self._begin

    @property
    def seconds(self) -> float:
        """Since the start; never 0."""
        return max(time.monotonic() - self._start, 1e-3)

    def add(self, count: int) -> None:
        """``count`` more bytes are there."""
        with self._lock:
            self._done += count
            self._came = time.monotonic()
        self.tell()

    def expect(self, count: int) -> None:
        """``count`` more bytes will come than was thought: something is read once more."""
        with self._lock:
            self._total += count

    def tell(self) -> None:
        """Tell whoever is due; call it now and then while nothing comes, for then that is the news."""
        with self._lock:
            now = time.monotonic()
            if now - self._told < _RANK_SECONDS:
                return
            self._told = now
            logs = now - self._logged >= self._every
            if logs:
                self._logged = now
        self._report(min(99.9, 100 * self._done / self._total) if self._total else 0.0)
        if logs:
            log.info("%s: %s", self._label, self._line(now))

    def finish(self) -> None:
        """All is there."""
        self._report(100.0)
        rate = self.came / self.seconds
        log.info("%s: %s in %.1f s (%s/s)", self._label, megabytes(self.came), self.seconds, megabytes(rate))

    def _report(self, percent: float) -> None:
        rank.current.report(self._phase, percent)
        if self._seen is not None:
            self._seen(self._done, self._total)

    def _line(self, now: float) -> str:
        rate = self.came / self.seconds
        left = f"{max(self._total - self._done, 0) / rate:.0f} s left" if rate else "time left unknown"
        silence = f"; nothing has come for {now - self._came:.0f} s" if now - self._came >= self._every else ""
        return f"{megabytes(self._done)} of {megabytes(self._total)}, {megabytes(rate)}/s, {left}{silence}"


def megabytes(count: float) -> str:
    """A size for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
