"""How far a fetch is, for the log and for the server that asks this rank; and whether the disk has room for it."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bloomery.errors import CheckpointError
from bloomery.processes import rank

log = logging.getLogger(__name__)

PHASE = "fetching checkpoint"
_LOG_SECONDS = 5.0
_DISK_RESERVE = 64 << 20


def check_room(uri: str, target: Path, needed: int) -> None:
    """Raise a CheckpointError when ``needed`` bytes do not fit beside ``target``."""
    free = shutil.disk_usage(target.parent).free
    if free < needed + _DISK_RESERVE:
        raise CheckpointError(
            f"{uri} needs {megabytes(needed)} in {target.parent}, where {megabytes(free)} are free: set TMPDIR to a "
            "directory on a larger volume (on SageMaker: VolumeSizeInGB)."
        )


class Progress:
    """Bytes that have come, counted by the threads that fetch and reported by the one that waits for them."""

    def __init__(self, uri: str, total: int, phase: str = PHASE) -> None:
        self._phase, self._uri, self._total, self._done = phase, uri, total, 0
        self._lock = threading.Lock()
        self._start = self._logged = time.monotonic()
        self.cancelled = threading.Event()

    def add(self, count: int) -> None:
        """``count`` more bytes have come."""
        with self._lock:
            self._done += count

    def report(self, last: bool = False) -> None:
        """Tell the server now, and the log every few seconds and at the end."""
        with self._lock:
            done = self._done
        rank.current.report(self._phase, min(100.0 * done / self._total, 100.0) if self._total else 100.0)
        now = time.monotonic()
        if not last and now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        rate = done / max(now - self._start, 1e-3)
        left = f"{max(self._total - done, 0) / rate:.0f} s left" if rate else "time left unknown"
        amount = f"{megabytes(done)} of {megabytes(self._total)}, {megabytes(rate)}/s"
        log.info("%s %s: %s, %s", self._phase, self._uri, amount, left)


@contextmanager
def watching(uri: str, target: Path, total: int) -> Iterator[None]:
    """Report how much of ``total`` bytes has appeared below ``target`` while somebody else's code fetches it."""
    progress = Progress(uri, total)
    over = threading.Event()

    def watch() -> None:
        seen = _size_below(target)
        while not over.wait(0.5):
            now = _size_below(target)
            progress.add(now - seen)
            seen = now
            progress.report()

    thread = threading.Thread(target=watch, name="fetch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _size_below(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):  # renamed since it was listed
            total += path.stat().st_size if path.is_file() else 0
    return total


def megabytes(count: float) -> str:
    """A size for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
