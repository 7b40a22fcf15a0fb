"""What can be told of a deployment while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bloomery.sagemaker.operating.logs import LogLine


@dataclass(frozen=True)
class Progress:
    """``elapsed``: seconds since the endpoint was asked for."""

    elapsed: float
    status: str
    phase: str


@dataclass(frozen=True)
class Note:
    """Something was done, or is about to be."""

    text: str


# A line is a container's own.
Event = Progress | LogLine | Note
Tell = Callable[[Event], object]
