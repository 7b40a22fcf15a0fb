"""What instances cost, and what that makes for a request and for a token, by a throughput that was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating.prices import Price

HOURS_PER_MONTH = 730.0  # as AWS's calculator has it


@dataclass(frozen=True)
class Instances:
    """So many of a type. ``count`` is what is there now."""

    instance_type: str | None
    count: int
    price: Price

    @property
    def per_hour(self) -> float | None:
        """USD of all of them; none costs nothing, whatever the price."""
        if self.count == 0:
            return 0.0
        return None if self.price.per_hour is None else self.price.per_hour * self.count


@dataclass(frozen=True)
class Throughput:
    """As ``bloomery bench`` has measured it, of all instances together. None: not measured."""

    requests_per_s: float | None
    output_tokens_per_s: float | None


@dataclass(frozen=True)
class Cost:
    """USD; None where a price or a throughput is missing."""

    per_hour: float | None
    throughput: Throughput | None = None

    @property
    def per_month(self) -> float | None:
        """If it runs all the time."""
        return None if self.per_hour is None else self.per_hour * HOURS_PER_MONTH

    @property
    def per_thousand_requests(self) -> float | None:
        """While it is as busy as it was measured."""
        return self._per(1000, self.throughput.requests_per_s if self.throughput else None)

    @property
    def per_million_tokens(self) -> float | None:
        """Of output, while it is as busy as it was measured."""
        return self._per(1_000_000, self.throughput.output_tokens_per_s if self.throughput else None)

    def _per(self, count: int, per_second: float | None) -> float | None:
        if self.per_hour is None or not per_second:
            return None
        return self.per_hour / 3600 / per_second * count


def per_hour(instances: Sequence[Instances]) -> float | None:
    """USD of all; None when one of them has no price."""
    each = [one.per_hour for one in instances]
    return None if None in each else sum(value for value in each if value is not None)


def read_throughput(report: Path) -> Throughput:
    """From the JSON that ``bloomery bench`` writes. Raises ConfigurationError."""
    try:
        document = json.loads(report.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--report {report} cannot be read: {error}") from error
    found = document.get("throughput") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ConfigurationError(f'--report {report} has no "throughput": give the JSON that `bloomery bench` writes')
    return Throughput(_rate(report, found, "requests_per_s"), _rate(report, found, "output_tokens_per_s"))


def _rate(report: Path, found: Mapping[str, Any], name: str) -> float | None:
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigurationError(f"--report {report}: throughput.{name} is a number of 0 or more, not {value!r}")
    return float(value)
