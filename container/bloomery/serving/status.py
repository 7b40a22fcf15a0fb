"""What is said about a model while it loads, serves and fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bloomery.workers.group import GroupStatus

ModelState = Literal["loading", "ready", "restarting", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """Of one moment. ``phase`` and ``percent`` are those of the group that has come farthest."""

    state: ModelState
    phase: str
    percent: float
    elapsed: float  # seconds since the load began, or that it took; since when a model that served cannot
    message: str  # why it cannot serve; empty when it can
    queued: int
    groups: tuple[GroupStatus, ...]
