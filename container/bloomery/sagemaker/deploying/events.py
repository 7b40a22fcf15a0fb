"""What can be told of a deployment while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Progress:
    """``elapsed``: seconds since the endpoint was asked for."""

    elapsed: float
    status: str
    phase: str


@dataclass(frozen=True)
class LogLine:
    """A container's own. ``stream``: ``variant/instance``."""

    at: datetime
    stream: str
    text: str


@dataclass(frozen=True)
class Note:
    """Something was done, or is about to be."""

    text: str


Event = Progress | LogLine | Note
