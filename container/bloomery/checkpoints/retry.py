"""When to try again: attempts with full jitter, a source's own wish for rest, and an end.

Pure policy: it reads no clock and sleeps nowhere but in ``Brake.wait``.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from bloomery.checkpoints.source import TransientError
from bloomery.errors import CheckpointError

_LONGEST_WISH = 60.0  # seconds: a server may ask for an hour
_MOMENT = 0.1  # seconds


@dataclass(frozen=True)
class RetryPolicy:
    """``patience``: seconds without progress after which a range is given up, however many attempts that were;
    ``attempts``: failures in a row, without progress between them, after which it is given up. The pause before attempt
    n is drawn evenly from 0 to ``base * 2**n`` seconds, ``cap`` at most, so that connections which failed together do
    not come back together.
    """

    attempts: int = 20
    patience: float = 60.0
    base: float = 0.1
    cap: float = 5.0

    def pause(self, failures: int, error: TransientError, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after ``failures`` failures in a row, of which ``error`` is the last."""
        jittered = draw() * min(self.cap, self.base * 2.0 ** min(failures, 30))
        return jittered if error.after is None else min(error.after, _LONGEST_WISH) + jittered


class Attempts:
    """The failures of one range. ``came`` is told of progress, ``failed`` of every failure."""

    def __init__(self, policy: RetryPolicy, now: float, draw: Callable[[], float] = random.random) -> None:
        self._policy, self._draw = policy, draw
        self._failures, self._since = 0, now

    def came(self, now: float) -> None:
        """Enough bytes have come: the range is alive."""
        self._failures, self._since = 0, now

    def failed(self, error: TransientError, now: float) -> float:
        """Seconds to wait before the next attempt. Raises CheckpointError when there has been enough of them."""
        self._failures += 1
        pause = self._policy.pause(self._failures, error, self._draw)
        waited = now - self._since
        if self._failures >= self._policy.attempts or waited + pause > self._policy.patience:
            raise CheckpointError(
                f"{error}; given up after {self._failures} attempts and {waited:.0f} s without progress"
            ) from error
        return pause


class Brake:
    """Held by all connections of a fetch: what one of them hears of SlowDown slows every other down.

    While a source asks for less, requests start at least a gap apart. It doubles when the wish is repeated (many
    connections hear one and the same within a moment: that counts once) and halves with each success.
    """

    def __init__(self, first_gap: float = 0.02, longest_gap: float = 1.0) -> None:
        self._first, self._longest = first_gap, longest_gap
        self._lock = threading.Lock()
        self._gap = self._next = self._heard_until = 0.0

    def slow_down(self, error: TransientError, now: float) -> None:
        """The source has asked for fewer requests."""
        with self._lock:
            if now >= self._heard_until:
                self._gap = min(self._longest, max(self._first, self._gap * 2))
                self._heard_until = now + max(self._gap, _MOMENT)
            self._next = max(self._next, now + self._gap, now + min(error.after or 0.0, _LONGEST_WISH))

    def succeeded(self) -> None:
        """A request was answered."""
        with self._lock:
            self._gap = self._gap / 2 if self._gap > self._first else 0.0

    def turn(self, now: float) -> float:
        """Seconds until the caller's request may start: 0 when nothing brakes."""
        with self._lock:
            begins = max(now, self._next)
            self._next = begins + self._gap if self._gap else self._next
            return begins - now

    def wait(self, cancelled: threading.Event) -> None:
        """Wait for this caller's turn, or for ``cancelled``."""
        if seconds := self.turn(time.monotonic()):
            cancelled.wait(seconds)


def retry_after(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, which holds a number or a date; None without one."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
