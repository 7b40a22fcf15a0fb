from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.hosting import World, endpoint, hosted


def statistics(world: World, endpoint: str, name: str) -> dict[str, Any]:
    """All that CloudWatch has of one metric, as one period."""
    now = datetime.now(UTC)
    (found,) = world.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=name,
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=7200,
        Statistics=["Sum", "Average", "Maximum", "SampleCount"],
    )["Datapoints"]
    return dict(found)


async def test_invocations_are_counted_under_sagemakers_names(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(count=2)
        await world.start(spec)
        await world.ask(spec.name, {"sleep": 0.2})
        await world.ask(spec.name, {})
        for status in (400, 500):
            with pytest.raises(world.client("sagemaker-runtime").exceptions.ModelError):
                await world.ask(spec.name, {"status": status})
        answer = world.client("sagemaker-runtime").invoke_endpoint_with_response_stream
        read = await asyncio.to_thread(
            lambda: list(answer(EndpointName=spec.name, Body=json.dumps({"do": {"stream": ["a"]}}))["Body"])
        )
        assert len(read) == 1
        await world.fleet.close(0)  # hands on what is held
        assert statistics(world, spec.name, "Invocations")["Sum"] == 5
        assert statistics(world, spec.name, "InvocationsPerInstance")["Sum"] == 2.5
        assert statistics(world, spec.name, "Invocation4XXErrors")["Sum"] == 1
        assert statistics(world, spec.name, "Invocation5XXErrors")["Sum"] == 1
        assert statistics(world, spec.name, "InvocationModelErrors")["Sum"] == 2
        latency = statistics(world, spec.name, "ModelLatency")
        assert latency["Unit"] == "Microseconds"
        assert latency["SampleCount"] == 5
        assert latency["Maximum"] >= 200_000
        assert statistics(world, spec.name, "OverheadLatency")["Average"] > 0
        assert statistics(world, spec.name, "FirstChunkModelLatency")["SampleCount"] == 1
        assert statistics(world, spec.name, "ConcurrentRequestsPerModel")["Maximum"] == 1
