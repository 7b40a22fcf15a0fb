"""How many instances or copies a scaling policy wants: arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bloomery.sagemaker.emulator.aws.alarms import breaching

# Periods in a row that a tracked metric is off its target, as Application Auto Scaling has them.
OUT_PERIODS, IN_PERIODS = 3, 15
COOLDOWN = 300.0  # seconds, where a target tracking policy names none, as for SageMaker
_SLACK = 0.9  # of the target: a tracked metric between this and the target changes nothing


def tracked(current: int, value: float, target: float) -> int:
    """What brings a metric per instance to its target. From nothing it cannot count up: there is no metric."""
    if current == 0 or _SLACK * target <= value <= target:
        return current
    wanted = math.ceil(current * value / target - 1e-9)
    return max(wanted, current + 1) if value > target else min(wanted, current - 1)


def alarmed(alarm: Mapping[str, Any], values: Sequence[float | None]) -> float | None:
    """How far the metric is beyond the alarm's threshold (negative: below); None while the alarm is off.

    ``values``: of the last periods, the newest first, None where nothing was measured.
    """
    there = [value for value in values if value is not None]
    if alarm["StateValue"] != "ALARM" and not breaching(alarm, there):
        return None
    return there[0] - float(alarm["Threshold"]) if there else 0.0


def stepped(current: int, beyond: float, config: Mapping[str, Any]) -> int:
    """By the StepScalingPolicyConfiguration, for an alarm that is so far beyond its threshold."""
    for step in config.get("StepAdjustments") or ():
        lower, upper = step.get("MetricIntervalLowerBound", -math.inf), step.get("MetricIntervalUpperBound", math.inf)
        if lower <= beyond < upper:
            return _adjusted(current, step["ScalingAdjustment"], config)
    return current


def _adjusted(current: int, adjustment: int, config: Mapping[str, Any]) -> int:
    kind = config.get("AdjustmentType", "ChangeInCapacity")
    if kind == "ExactCapacity":
        return adjustment
    if kind == "ChangeInCapacity":
        return max(0, current + adjustment)
    change = current * adjustment / 100
    whole = math.floor(abs(change)) if abs(change) > 1 else math.ceil(abs(change))
    whole = max(whole, int(config.get("MinAdjustmentMagnitude", 1)))
    return max(0, current + (whole if adjustment > 0 else -whole))
