"""Goodput: how many requests per second met every objective (Zhong et al., DistServe, OSDI 2024)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bloomery.bench.endpoint.call import Call
from bloomery.errors import ConfigurationError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NAMES = ("ttft", "tpot", "latency")
_PART = re.compile(r"(\w+)=(\d+(?:\.\d*)?)(us|ms|s)")
EXAMPLE = "ttft=500ms,tpot=50ms"


@dataclass(frozen=True)
class Objective:
    """``name`` of a call's figure is to be ``seconds`` at most."""

    name: str
    seconds: float

    def met(self, call: Call) -> bool:
        """A figure that the call does not have (tpot of one token) cannot be missed, unless nothing was streamed."""
        value: float | None = getattr(call, self.name)
        return call.streamed if value is None else value <= self.seconds

    def __str__(self) -> str:
        return f"{self.name} ≤ {self.seconds * 1000:g} ms"


def read_objectives(text: str) -> tuple[Objective, ...]:
    """``ttft=500ms,tpot=50ms``. Raises ConfigurationError."""
    found = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = _PART.fullmatch(part)
        if match is None or match[1] not in _NAMES:
            raise ConfigurationError(
                f"--goodput {text}: {part!r} is none of {', '.join(_NAMES)} with a time; such as {EXAMPLE}"
            )
        found.append(Objective(match[1], float(match[2]) * _UNITS[match[3]]))
    return tuple(found)


def good(calls: Sequence[Call], objectives: Sequence[Objective]) -> int:
    """How many met all of them; a call that failed met none."""
    return sum(not call.failure and all(each.met(call) for each in objectives) for call in calls)
