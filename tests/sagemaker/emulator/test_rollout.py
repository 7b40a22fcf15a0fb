from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.hosting import endpoint

from bloomery.sagemaker.emulator.containers.rollout import Plan, Step
from bloomery.sagemaker.emulator.deployment import EndpointSpec


def plan(config: dict[str, Any] | None, *, old: int = 4, new: int = 4) -> Plan:
    return Plan.of(spec(old), spec(new), config)


def spec(count: int) -> EndpointSpec:
    made = endpoint("name", variants={"v": 1})
    return replace(made, variants=tuple(replace(variant, instance_count=count) for variant in made.variants))


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


def blue_green(kind: str, **sizes: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 60, **sizes}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 30}}


def test_without_a_config_everything_moves_at_once() -> None:
    found = plan(None)
    assert found.steps == (Step({"v": 4}, 1.0, 0.0),)
    assert (found.termination_wait, found.limit) == (0, None)


def test_all_at_once_waits_once() -> None:
    found = plan(blue_green("ALL_AT_ONCE"))
    assert found.steps == (Step({"v": 4}, 1.0, 60.0),)
    assert found.termination_wait == 30


@pytest.mark.parametrize("size", [percent(25), instances(1)])
def test_a_canary_goes_first(size: dict[str, Any]) -> None:
    assert plan(blue_green("CANARY", CanarySize=size)).steps == (
        Step({"v": 4}, 0.25, 60.0),
        Step({"v": 4}, 1.0, 60.0),
    )


@pytest.mark.parametrize(("value", "shares"), [(50, [0.5, 1]), (40, [0.4, 0.8, 1]), (30, [0.3, 0.6, 0.9, 1])])
def test_linear_steps_end_with_everything(value: int, shares: list[float]) -> None:
    steps = plan(blue_green("LINEAR", LinearStepSize=percent(value))).steps
    assert [step.share for step in steps] == pytest.approx(shares)
    assert {step.wait for step in steps} == {60.0}


def test_rolling_has_new_instances_before_it_ends_old_ones() -> None:
    policy = {
        "MaximumBatchSize": instances(2),
        "WaitIntervalInSeconds": 10,
        "MaximumExecutionTimeoutInSeconds": 600,
        "RollbackMaximumBatchSize": percent(50),
    }
    found = plan({"RollingUpdatePolicy": policy}, old=3, new=5)
    assert [(step.instances["v"], step.remaining) for step in found.steps] == [
        (2, {"v": 2}),
        (4, {"v": 1}),
        (5, {"v": 0}),
    ]
    assert [step.share for step in found.steps] == pytest.approx([1 / 3, 2 / 3, 1])
    assert (found.limit, found.rollback) == (600, 0.5)
