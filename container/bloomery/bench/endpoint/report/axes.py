"""Numbers to places: scales with round ticks, and how ticks are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Scale(Protocol):
    """Values from ``ticks[0]`` to the end, onto 0 to 1."""

    @property
    def ticks(self) -> Sequence[float]: ...

    def place(self, value: float) -> float:
        """0 at the begin of the axis, 1 at its end; beyond for values that are beyond."""


@dataclass(frozen=True)
class Linear:
    """From ``low`` to ``high``."""

    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def to(cls, high: float, count: int = 5) -> Linear:
        """From 0 to the first round number from ``high`` on."""
        high = high if high > 0 else 1.0
        rough = high / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
        number = math.ceil(high / step - 1e-9)
        return cls(0.0, number * step, [round(step * i, 12) for i in range(number + 1)])

    def place(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Logarithmic:
    """From ``low`` to ``high``, both above 0."""

    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float]) -> Logarithmic:
        """Whole decades are too coarse for most measurements: ticks at 1, 2 and 5, thinned out over many decades."""
        positive = [value for value in values if value > 0] or [1.0]
        low, high = min(positive), max(positive)
        steps = (1, 2, 5) if high / low < 2000 else (1,)
        marks = [
            step * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for step in steps
        ]
        begin = max((mark for mark in marks if mark <= low * 1.0001), default=low)
        end = min((mark for mark in marks if mark >= high * 0.9999 and mark > begin), default=high * 2)
        return cls(begin, end, [mark for mark in marks if begin <= mark <= end])

    @classmethod
    def at(cls, values: Sequence[float]) -> Logarithmic:
        """Ticks at the values themselves: the levels of a sweep, with room on both sides."""
        ordered = sorted(set(values))
        room = 1.18
        return cls(ordered[0] / room, ordered[-1] * room, ordered)

    def place(self, value: float) -> float:
        value = max(value, self.low * 1e-3)
        return math.log(value / self.low) / math.log(self.high / self.low)


def written(value: float) -> str:
    """A tick, short: 1,500 and 0.25."""
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def milliseconds(value: float) -> str:
    """A tick of a time that is given in milliseconds."""
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    return f"{value:.3g} ms" if value else "0"
