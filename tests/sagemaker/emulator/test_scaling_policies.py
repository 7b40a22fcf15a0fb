from __future__ import annotations

from typing import Any

import pytest

from bloomery.sagemaker.emulator.autoscaling.scaling_policies import alarmed, stepped, tracked


@pytest.mark.parametrize(
    ("current", "value", "expected"),
    [
        (2, 70, 2),  # at its target
        (2, 64, 2),  # near it
        (2, 71, 3),
        (2, 210, 6),
        (4, 35, 2),
        (4, 0, 0),
        (1, 0, 0),
        (0, 500, 0),  # nothing measures what has no instance
    ],
)
def test_a_metric_is_brought_to_its_target(current: int, value: float, expected: int) -> None:
    assert tracked(current, value, target=70) == expected


def config(kind: str, *steps: tuple[float | None, float | None, int], **more: Any) -> dict[str, Any]:
    adjustments = []
    for lower, upper, adjustment in steps:
        bounds = {"MetricIntervalLowerBound": lower, "MetricIntervalUpperBound": upper}
        adjustments.append(
            {name: bound for name, bound in bounds.items() if bound is not None} | {"ScalingAdjustment": adjustment}
        )
    return {"AdjustmentType": kind, "StepAdjustments": adjustments, **more}


@pytest.mark.parametrize(
    ("current", "beyond", "given", "expected"),
    [
        (0, 0.0, config("ChangeInCapacity", (0, None, 1)), 1),
        (3, 5.0, config("ChangeInCapacity", (0, 10, 1), (10, None, 4)), 4),
        (3, 10.0, config("ChangeInCapacity", (0, 10, 1), (10, None, 4)), 7),
        (3, -2.0, config("ChangeInCapacity", (None, 0, -5)), 0),
        (3, -2.0, config("ChangeInCapacity", (0, None, 1)), 3),
        (3, 1.0, config("ExactCapacity", (0, None, 2)), 2),
        (10, 1.0, config("PercentChangeInCapacity", (0, None, 25)), 12),
        (2, 1.0, config("PercentChangeInCapacity", (0, None, 10)), 3),
        (2, 1.0, config("PercentChangeInCapacity", (0, None, 10), MinAdjustmentMagnitude=4), 6),
        (10, -1.0, config("PercentChangeInCapacity", (None, 0, -25)), 8),
    ],
)
def test_steps_go_by_how_far_the_metric_is_beyond(
    current: int, beyond: float, given: dict[str, Any], expected: int
) -> None:
    assert stepped(current, beyond, given) == expected


def test_an_alarm_is_on_by_its_state_or_its_metric() -> None:
    alarm: dict[str, Any] = {
        "StateValue": "OK",
        "Threshold": 5.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "EvaluationPeriods": 2,
    }
    assert alarmed(alarm, [7.0, 6.0]) == 2.0
    assert alarmed(alarm, [7.0, 4.0]) is None
    assert alarmed(alarm, [7.0, None]) is None
    assert alarmed({**alarm, "DatapointsToAlarm": 1}, [7.0, None]) == 2.0
    assert alarmed({**alarm, "StateValue": "ALARM"}, [None, None]) == 0.0
