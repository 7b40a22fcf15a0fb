from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.support.hosting import REGION, World, hosted

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.aws.alarms import Alarms, breaching
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.metrics import Metrics


def alarm(**changes: Any) -> dict[str, Any]:
    return {"ComparisonOperator": "GreaterThanThreshold", "Threshold": 5.0, "EvaluationPeriods": 2, **changes}


@pytest.mark.parametrize(
    ("changes", "values", "expected"),
    [
        ({}, [6, 7], True),
        ({}, [6, 5], False),
        ({}, [6], False),
        ({}, [], False),
        ({"DatapointsToAlarm": 1}, [4, 6], True),
        ({"TreatMissingData": "breaching"}, [6], True),
        ({"TreatMissingData": "breaching"}, [4], False),
        ({"ComparisonOperator": "LessThanOrEqualToThreshold"}, [5, 4], True),
    ],
)
def test_enough_periods_beyond_the_threshold(changes: dict[str, Any], values: list[float], expected: bool) -> None:
    assert breaching(alarm(**changes), values) is expected


async def put(world: World, name: str, **changes: Any) -> None:
    given = alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Statistic="Sum",
        Period=60,
        Dimensions=[{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "AllTraffic"}],
        **{"EvaluationPeriods": 1} | changes,
    )
    await asyncio.to_thread(world.client("cloudwatch").put_metric_alarm, **given)


async def test_the_state_and_the_metric_count(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        clients, name = Clients(world.around), f"e-{uuid.uuid4().hex[:8]}"
        try:
            alarms = Alarms(clients, REGION, [name])
            with pytest.raises(DeploymentFailure, match="they do not exist"):
                await alarms.check()
            await put(world, name)
            await alarms.watch(0)
            metrics = Metrics(clients)
            where = {"EndpointName": name, "VariantName": "AllTraffic"}
            for errors in range(7):
                metrics.add(REGION, where, "Invocation5XXErrors", "None", errors % 2 or 1)
            await metrics.close()
            with pytest.raises(DeploymentFailure, match=name):
                await alarms.watch(600)
            await put(world, name, Threshold=7.0)
            await alarms.check()
            state = {"AlarmName": name, "StateValue": "ALARM", "StateReason": "a test"}
            await asyncio.to_thread(world.client("cloudwatch").set_alarm_state, **state)
            with pytest.raises(DeploymentFailure, match=name):
                await alarms.check()
        finally:
            clients.close()


async def test_without_alarms_time_passes(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        clients = Clients(world.around)
        try:
            began = asyncio.get_running_loop().time()
            await Alarms(clients, REGION, []).watch(0.2)
            assert asyncio.get_running_loop().time() - began >= 0.2
        finally:
            clients.close()
