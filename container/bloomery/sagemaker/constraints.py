"""What botocore's model of an API says of a value, and botocore's client does not check: enumerations, upper limits,
patterns. The emulator answers with it what AWS would, and a client knows it before it asks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_LONGEST_MATCHED = 4096  # characters; no field that has a pattern is longer, and some patterns backtrack


@dataclass(frozen=True)
class Constraint:
    """``limit``: the number, the values of an enumeration, or the pattern."""

    kind: Literal["shortest", "longest", "least", "most", "one of", "pattern"]
    limit: Any


def broken(shape: Any, value: Any) -> Iterator[Constraint]:
    """The constraints of ``shape`` (botocore's) that ``value``, which is of its type, does not keep to."""
    limits = shape.metadata
    if shape.type_name in ("string", "blob", "list", "map"):
        if "min" in limits and len(value) < limits["min"]:
            yield Constraint("shortest", limits["min"])
        if "max" in limits and len(value) > limits["max"]:
            yield Constraint("longest", limits["max"])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if "min" in limits and value < limits["min"]:
            yield Constraint("least", limits["min"])
        if "max" in limits and value > limits["max"]:
            yield Constraint("most", limits["max"])
    if shape.type_name == "string":
        if limits.get("enum") and value not in limits["enum"]:
            yield Constraint("one of", tuple(limits["enum"]))
        pattern = compiled(limits.get("pattern", ""))
        if pattern is not None and len(value) <= _LONGEST_MATCHED and not pattern.fullmatch(value):
            yield Constraint("pattern", limits["pattern"])


@functools.cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """None for no pattern, and for one that only Java understands (``\\p{L}``)."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None
