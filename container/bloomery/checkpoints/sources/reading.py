"""Small files of a source, and beginnings of large ones, into memory; with the usual attempts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from bloomery.checkpoints.retry import Attempts, RetryPolicy
from bloomery.checkpoints.source import Connection, Entry, TransientError, UnreachableError
from bloomery.errors import CheckpointError

_POLICY = RetryPolicy(attempts=6, patience=60.0)
T = TypeVar("T")


def read_bytes(connection: Connection, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
    """``length`` bytes of ``entry`` from ``start``, or as many as there are. Raises CheckpointError."""
    there = max(entry.size - start, 0)
    length = there if length is None else min(length, there)

    def attempt() -> bytes:
        data = bytearray(length)
        left = memoryview(data)
        with connection.read(entry, start, length) as body:
            while left and (count := body.readinto(left)):
                left = left[count:]
        return bytes(data)

    return persistently(attempt)


def persistently(attempt: Callable[[], T], policy: RetryPolicy = _POLICY) -> T:
    """What ``attempt`` returns, called again while it raises TransientError; in vain: UnreachableError."""
    attempts = Attempts(policy, time.monotonic())
    while True:
        try:
            return attempt()
        except TransientError as error:
            try:
                pause = attempts.failed(error, time.monotonic())
            except CheckpointError as over:
                raise UnreachableError(str(over)) from error
            time.sleep(pause)
