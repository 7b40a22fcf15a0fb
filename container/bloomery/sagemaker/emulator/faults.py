"""Errors by rule: what can go wrong at AWS, made to go wrong here.

A rule is ``KIND[,NAME=VALUE…]`` on the command line (``--fault``), and an object with ``kind`` and the same names at
``POST /_bloomery/faults``. The first rule that fits strikes, and counts; one that has struck ``times`` times is spent.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from bloomery.errors import ConfigurationError


class Kind(StrEnum):
    """What goes wrong."""

    INSUFFICIENT_INSTANCE_CAPACITY = "InsufficientInstanceCapacity"
    RESOURCE_LIMIT_EXCEEDED = "ResourceLimitExceeded"
    THROTTLING = "ThrottlingException"
    SLOW_START = "SlowStart"
    CONTAINER_DIES = "ContainerDies"
    MODEL_ERROR = "ModelError"


# What each kind does, and which names it takes besides ``times`` and ``fraction``.
KINDS: Mapping[Kind, tuple[str, tuple[str, ...]]] = {
    Kind.INSUFFICIENT_INSTANCE_CAPACITY: (
        "no instance can be had: a new endpoint fails, an update is rolled back",
        ("instance_type", "endpoint"),
    ),
    Kind.RESOURCE_LIMIT_EXCEEDED: (
        "CreateEndpoint, UpdateEndpoint and UpdateEndpointWeightsAndCapacities are refused, or the operation named",
        ("instance_type", "operation"),
    ),
    Kind.THROTTLING: ("calls are refused: all, or those of the operation named", ("operation",)),
    Kind.SLOW_START: (
        "no container is healthy before it is so many seconds old",
        ("seconds", "instance_type", "endpoint"),
    ),
    Kind.CONTAINER_DIES: (
        "a container is killed: so many seconds after it has become healthy, or by the invocation after so many",
        ("seconds", "invocations", "instance_type", "endpoint"),
    ),
    Kind.MODEL_ERROR: (
        "invocations fail as if the container had answered with ``status`` (500)",
        ("status", "endpoint"),
    ),
}


@dataclass(frozen=True)
class Rule:
    """``instance_type``, ``endpoint`` and ``operation`` are regular expressions for the whole name; None: any."""

    kind: Kind
    times: int | None = None  # None: always
    fraction: float = 1.0  # of the occasions, by chance
    instance_type: str | None = None
    endpoint: str | None = None
    operation: str | None = None
    seconds: float | None = None
    invocations: int | None = None
    status: int = 500

    @classmethod
    def parse(cls, text: str) -> Rule:
        """``KIND[,NAME=VALUE…]``. Raises ConfigurationError."""
        kind, *pairs = text.split(",")
        given: dict[str, Any] = {}
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigurationError(f"fault {text!r}: {pair!r} is no NAME=VALUE")
            given[name.strip()] = value.strip()
        return cls.of({"kind": kind.strip(), **given})

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Rule:
        """From names and values. Raises ConfigurationError."""
        kind = _kind(given.get("kind"))
        known = ("times", "fraction", *KINDS[kind][1])
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name == "kind":
                continue
            if name not in known:
                raise ConfigurationError(f"fault {kind}: there is {', '.join(known)}, not {name!r}")
            values[name] = _value(kind, name, value)
        rule = cls(kind, **values)
        if kind is Kind.SLOW_START and rule.seconds is None:
            raise ConfigurationError(f"fault {kind}: seconds are needed, as in {kind},seconds=60")
        if kind is Kind.CONTAINER_DIES and (rule.seconds is None) == (rule.invocations is None):
            raise ConfigurationError(f"fault {kind}: either seconds or invocations, as in {kind},invocations=3")
        return rule

    def fits(self, kind: Kind, circumstances: Mapping[str, str]) -> bool:
        """Whether it is about this. A name that the rule asks for and nobody knows does not fit."""
        asked = {"instance_type": self.instance_type, "endpoint": self.endpoint, "operation": self.operation}
        return self.kind is kind and all(
            pattern is None or re.fullmatch(pattern, circumstances.get(name, "")) for name, pattern in asked.items()
        )


@dataclass
class _Standing:
    rule: Rule
    struck: int = 0


@dataclass
class Faults:
    """The rules that stand, and how often each has struck."""

    _standing: dict[int, _Standing] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, rule: Rule) -> int:
        """From now on; the number by which it is known."""
        number = next(self._numbers)
        self._standing[number] = _Standing(rule)
        return number

    def remove(self, number: int | None) -> bool:
        """One, or all; whether there was any."""
        if number is None:
            gone, self._standing = bool(self._standing), {}
            return gone
        return self._standing.pop(number, None) is not None

    def list(self) -> list[dict[str, Any]]:
        """As JSON: each rule's number, what it says, and how often it has struck."""
        return [
            {"id": number, **_said(standing.rule), "struck": standing.struck}
            for number, standing in self._standing.items()
        ]

    def strike(self, kind: Kind, **circumstances: str) -> Rule | None:
        """The rule that makes this go wrong now; None when all is well."""
        for standing in self._standing.values():
            rule = standing.rule
            if rule.times is not None and standing.struck >= rule.times:
                continue
            if rule.fits(kind, circumstances) and random.random() < rule.fraction:
                standing.struck += 1
                return rule
        return None


def _said(rule: Rule) -> dict[str, Any]:
    """Its kind, and what differs from the defaults."""
    return {
        each.name: getattr(rule, each.name)
        for each in fields(Rule)
        if each.name == "kind" or getattr(rule, each.name) != each.default
    }


def _kind(given: object) -> Kind:
    try:
        return Kind(str(given))
    except ValueError:
        raise ConfigurationError(f"fault {given!r}: there is {', '.join(Kind)}") from None


def _value(kind: Kind, name: str, given: Any) -> Any:
    try:
        if name in ("instance_type", "endpoint", "operation"):
            re.compile(str(given))
            return str(given)
        value = float(given) if name in ("seconds", "fraction") else int(given)
    except (TypeError, ValueError, re.error) as error:
        raise ConfigurationError(f"fault {kind}: {name}={given}: {error}") from error
    least, most = _RANGES[name]
    if not least <= value <= most:
        raise ConfigurationError(f"fault {kind}: {name}={given} is not between {least:g} and {most:g}")
    return value


_RANGES: Mapping[str, tuple[float, float]] = {
    "times": (1, 1e9),
    "fraction": (0, 1),
    "seconds": (0, 86_400),
    "invocations": (0, 1e9),
    "status": (400, 599),
}
