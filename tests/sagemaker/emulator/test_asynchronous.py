from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.hosting import World, endpoint, hosted, until

from bloomery.sagemaker.emulator.deployment import AsyncOutput, EndpointSpec
from bloomery.sagemaker.emulator.invoking.limits import Limits


async def submit(world: World, name: str, **more: Any) -> dict[str, Any]:
    client = world.client("sagemaker-runtime")
    return dict(await asyncio.to_thread(client.invoke_endpoint_async, EndpointName=name, **more))


def output(world: World, most: int | None = None) -> AsyncOutput:
    return AsyncOutput(f"s3://{world.bucket}/out/", f"s3://{world.bucket}/failed", most)


def content(world: World, uri: str) -> bytes | None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client = world.client("s3")
    try:
        with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            return bytes(body.read())
    except client.exceptions.NoSuchKey:
        return None


async def arrived(world: World, uri: str) -> bytes:
    await until(lambda: content(world, uri) is not None)
    found = content(world, uri)
    assert found is not None
    return found


async def started(world: World, **more: Any) -> EndpointSpec:
    spec = endpoint(output=output(world, more.pop("most", None)), **more)
    await world.start(spec)
    return spec


async def test_the_input_comes_from_s3_and_the_answer_goes_there(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = await started(world)
        uri = world.put("in.json", b'{"do": {}}')
        told = await submit(
            world, spec.name, InputLocation=uri, ContentType="application/json", CustomAttributes="trace=7"
        )
        assert told["ResponseMetadata"]["HTTPStatusCode"] == 202
        assert told["InferenceId"]
        assert told["OutputLocation"].startswith(f"s3://{world.bucket}/out/")
        assert told["OutputLocation"].endswith(".out")
        assert told["FailureLocation"].startswith(f"s3://{world.bucket}/failed/")
        headers = json.loads(await arrived(world, told["OutputLocation"]))["headers"]
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=7"
        assert headers["X-Amzn-SageMaker-Inference-Id"] == told["InferenceId"]
        assert content(world, told["FailureLocation"]) is None


async def test_the_input_may_be_in_the_request_and_the_answer_called_as_wanted(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = await started(world)
        told = await submit(
            world, spec.name, Body=b"verse", InferenceId="mine", S3OutputPathExtension="a/b", Filename="answer.txt"
        )
        assert (told["InferenceId"], told["OutputLocation"]) == ("mine", f"s3://{world.bucket}/out/a/b/answer.txt")
        assert await arrived(world, told["OutputLocation"]) == b"verse"


async def test_failures_go_to_the_failure_path(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = await started(world)
        told = await submit(world, spec.name, Body=b'{"do": {"status": 500}}')
        assert b"Received server error (500) from primary" in await arrived(world, told["FailureLocation"])
        told = await submit(world, spec.name, Body=b'{"do": {"sleep": 60}}', InvocationTimeoutSeconds=1)
        assert b"Your invocation timed out" in await arrived(world, told["FailureLocation"])
        told = await submit(world, spec.name, InputLocation=f"s3://{world.bucket}/none")
        assert b"Failed to read the input" in await arrived(world, told["FailureLocation"])
        assert content(world, told["OutputLocation"]) is None


async def test_an_instance_has_so_many_at_a_time_and_the_rest_waits_in_order(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = await started(world, most=2)
        (instance,) = world.instances(spec.name)
        told, most = [], 0
        for number in range(6):
            told.append(await submit(world, spec.name, Body=json.dumps({"do": {"sleep": 1, "number": number}})))
        waiting = {answer["OutputLocation"] for answer in told}
        deadline = time.monotonic() + 60
        while waiting:
            assert time.monotonic() < deadline
            most = max(most, instance.outstanding)
            waiting = {uri for uri in waiting if await asyncio.to_thread(content, world, uri) is None}
            await asyncio.sleep(0.05)
        assert most == 2
        asked = [line for line in world.fleet.last_lines(spec.name, 20) if line.startswith("asked to")]
        numbers = [json.loads(line.removeprefix("asked to "))["number"] for line in asked]
        assert [sorted(numbers[:2]), sorted(numbers[2:4]), sorted(numbers[4:])] == [[0, 1], [2, 3], [4, 5]]


async def test_what_waits_too_long_expires(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=Limits(waiting=1)) as world:
        spec = await started(world)
        world.instances(spec.name)[0].healthy = False
        told = await submit(world, spec.name, Body=b"x")
        assert b"waited longer than its RequestTTLSeconds (1)" in await arrived(world, told["FailureLocation"])


async def test_wrong_requests_are_refused_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec, plain = await started(world), endpoint()
        await world.start(plain)
        for name, more, message in (
            ("nobody", {"Body": b"x"}, "not found"),
            (plain.name, {"Body": b"x"}, "has no AsyncInferenceConfig"),
            (spec.name, {"Body": b"x", "InputLocation": "s3://a/b"}, "mutually exclusive"),
            (spec.name, {}, "mutually exclusive"),
            (spec.name, {"Body": b"x" * 128_001}, "less than or equal to 128000"),
            (spec.name, {"Body": b"x", "InvocationTimeoutSeconds": 4000}, "'invocationTimeoutSeconds' failed"),
            (spec.name, {"InputLocation": "file:///x"}, "'inputLocation' failed to satisfy constraint"),
        ):
            with pytest.raises(ClientError, match=message):
                await submit(world, name, **more)
        with pytest.raises(ClientError, match="use InvokeEndpointAsync"):
            await world.ask(spec.name, {})
