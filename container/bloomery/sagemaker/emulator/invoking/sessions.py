"""Stateful sessions: a container opens one, and requests that name it go to the instance that has it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bloomery.sagemaker.emulator.containers.instance import Instance
from bloomery.sagemaker.emulator.containers.running import Variant

NEW = "NEW_SESSION"  # as SessionId: a wish to the container
_OPENED, _CLOSED = "X-Amzn-SageMaker-New-Session-Id", "X-Amzn-SageMaker-Closed-Session-Id"


@dataclass(frozen=True)
class _Session:
    variant: Variant
    instance: Instance
    url: str  # of the container, whose successor in the same instance does not know the session
    expires: float  # seconds since 1970

    @property
    def lives(self) -> bool:
        """Whether it has neither expired nor lost its container."""
        instance = self.instance
        return time.time() < self.expires and instance.healthy and instance.url == self.url


class Sessions:
    """Which instance of which endpoint has which session. They end with the container."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}  # by names of endpoints, and ids

    def find(self, endpoint: str, session: str) -> tuple[Variant, Instance] | None:
        """Where it is; None when it never was, has been closed, has expired, or its container takes no requests."""
        found = self._sessions.get((endpoint, session))
        return (found.variant, found.instance) if found is not None and found.lives else None

    def note(self, endpoint: str, variant: Variant, instance: Instance, headers: Mapping[str, str]) -> None:
        """What an answer's ``headers`` say: a new one is ``ID; Expires=2026-01-02T03:04:05Z``, a closed one ``ID``."""
        if closed := headers.get(_CLOSED):
            self._sessions.pop((endpoint, closed.strip()), None)
        if opened := headers.get(_OPENED):
            self._sessions = {key: each for key, each in self._sessions.items() if each.lives}
            session, _, rest = opened.partition(";")
            self._sessions[endpoint, session.strip()] = _Session(variant, instance, instance.url, _expiry(rest))


def _expiry(text: str) -> float:
    """Of `` Expires=…``; without one that can be read a session lasts as long as its instance."""
    try:
        return datetime.fromisoformat(text.strip().removeprefix("Expires=")).timestamp()
    except ValueError:
        return float("inf")
