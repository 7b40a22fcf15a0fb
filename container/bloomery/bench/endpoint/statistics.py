"""Percentiles and how sure they are.

The interval of a percentile is that of the binomial order statistics: among n independent calls, the number of those
below the true p-quantile is binomial(n, p), so that two of the ordered values enclose it with a known probability,
whatever the distribution (Conover, Practical Nonparametric Statistics, section 3.2). Few calls enclose no P99: then
there is no upper end, and the report says how many calls would be needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bloomery.bench.measure import percentile

PERCENTS = (50, 90, 99)
CONFIDENCE = 0.95
ENOUGH = 30  # calls: below, a report warns of every figure


@dataclass(frozen=True)
class Quantile:
    """A percentile with the ends of its interval; None: no call bounds it on that side."""

    value: float
    low: float | None
    high: float | None


def quantile(values: Sequence[float], percent: float, confidence: float = CONFIDENCE) -> Quantile:
    """Nearest rank, and the narrowest order statistics that leave at most half of the doubt on either side."""
    ordered = sorted(values)
    low, high = ranks(len(ordered), percent / 100, confidence)
    return Quantile(
        percentile(ordered, percent),
        None if low is None else ordered[low - 1],
        None if high is None else ordered[high - 1],
    )


def ranks(count: int, quantile_: float, confidence: float) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the ordered values that enclose the quantile, each side wrong with (1 - confidence) / 2."""
    doubt = (1 - confidence) / 2
    low = high = None
    below = 0.0  # probability that fewer than ``rank`` values lie below the quantile
    for rank in range(1, count + 1):
        below += _binomial(rank - 1, count, quantile_)
        if below <= doubt:
            low = rank
        if high is None and 1 - below <= doubt:
            high = rank
            break
    return low, high


def calls_needed(percent: float, confidence: float = CONFIDENCE) -> int:
    """How many calls bound this percentile from above at all."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(percent / 100))


def _binomial(k: int, n: int, p: float) -> float:
    logarithm = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(logarithm + k * math.log(p) + (n - k) * math.log1p(-p))


def described(values: Sequence[float], *, independent: bool = True, scale: float = 1000) -> dict[str, Any] | None:
    """Mean, percentiles and their intervals, in milliseconds; None of nothing. Values that depend on each other, as
    the gaps of one stream do, have no such intervals."""
    if not values:
        return None
    told: dict[str, Any] = {"count": len(values), "mean": round(scale * sum(values) / len(values), 3)}
    for percent in PERCENTS:
        if not independent:
            told[f"p{percent}"] = round(scale * percentile(values, percent), 3)
            continue
        found = quantile(values, percent)
        told[f"p{percent}"] = round(scale * found.value, 3)
        told[f"p{percent}_interval"] = [
            None if end is None else round(scale * end, 3) for end in (found.low, found.high)
        ]
    return told | {"max": round(scale * max(values), 3)}


def curve(values: Sequence[float], points: int = 200, scale: float = 1000) -> list[float]:
    """The distribution as so many values at equal steps of probability, from the smallest to the largest."""
    ordered = sorted(values)
    if len(ordered) <= points:
        return [round(scale * value, 3) for value in ordered]
    return [round(scale * ordered[round(i * (len(ordered) - 1) / (points - 1))], 3) for i in range(points)]
