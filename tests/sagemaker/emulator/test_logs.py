from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.hosting import REGION, endpoint, hosted, until

from bloomery.sagemaker.emulator.aws import logs
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.logs import Logs


async def test_a_containers_output_is_in_cloudwatch_under_sagemakers_names(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(variants={"blue": 1})
        await world.start(spec)
        (instance,) = world.instances(spec.name)
        group, client = f"/aws/sagemaker/Endpoints/{spec.name}", world.client("logs")

        def arrived() -> bool:
            found = client.describe_log_streams(logGroupName=group)["logStreams"]
            return [stream["logStreamName"] for stream in found] == [f"blue/{instance.id}"]

        await until(lambda: client.describe_log_groups(logGroupNamePrefix=group)["logGroups"])
        await until(arrived)
        await until(lambda: client.filter_log_events(logGroupName=group)["events"])
        (event,) = client.filter_log_events(logGroupName=group)["events"]
        assert event["message"] == "started with serve"
        await world.fleet.stop(spec.name)
        assert client.filter_log_events(logGroupName=group)["events"] == [event]  # AWS keeps them, too


async def test_a_flood_is_bounded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_HELD", 2500)
    async with hosted(tmp_path) as world:
        name, clients = endpoint().name, Clients(world.around)
        flooded = Logs(clients)
        for number in range(3000):
            flooded.write(REGION, name, "blue/i-1", f"line {number}")
        await flooded.close()
        client = world.client("logs")
        group = f"/aws/sagemaker/Endpoints/{name}"
        pages = client.get_paginator("filter_log_events").paginate(logGroupName=group)
        messages = [event["message"] for page in pages for event in page["events"]]
        assert len(messages) == 2501
        assert messages[2499] == "line 2499"
        assert messages[-1] == "[500 lines left out: they came faster than logs go]"
        assert flooded.last(name, 2) == ["line 2998", "line 2999"]
        clients.close()


async def test_lines_that_cannot_be_delivered_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with hosted(tmp_path, url="http://127.0.0.1:9") as world:
        spec = endpoint()
        await world.start(spec)
        await asyncio.wait_for(world.fleet.stop(spec.name), 30)
        assert "were lost" in caplog.text
