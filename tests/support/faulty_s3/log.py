"""What was asked and answered, so that a test can prove what was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One request, written when its answer ended. ``start`` and ``length``: the bytes of the object that were asked
    for (0 and its size without a Range; None where no object is read); ``sent``: how many bytes of body left the
    server, which is an upper limit of what arrived; ``fault``: the kinds that happened to it, joined by commas;
    ``connection``: which one it came over, of all since the start."""

    operation: str
    method: str
    bucket: str
    key: str
    status: int
    start: int | None
    length: int | None
    sent: int
    fault: str = ""
    connection: int = 0
