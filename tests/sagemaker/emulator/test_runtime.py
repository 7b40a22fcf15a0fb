from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, EventStreamError
from tests.support.hosting import ACCOUNT, REGION, World, endpoint, hosted, until

from bloomery.sagemaker.emulator.invoking import eventstream
from bloomery.sagemaker.emulator.invoking.limits import Limits


async def invoke(world: World, name: str, body: bytes = b"hello", **more: Any) -> Any:
    client = world.client("sagemaker-runtime")
    return await asyncio.to_thread(client.invoke_endpoint, EndpointName=name, Body=body, **more)


async def stream(
    world: World, name: str, do: object, seen: Callable[[int], object] = lambda _: None, **more: Any
) -> list[bytes]:
    """The pieces; ``seen`` is told how many have come, each time. Raises what boto3 raises."""
    client = world.client("sagemaker-runtime")

    def read() -> list[bytes]:
        pieces, body = [], json.dumps({"do": do})
        answer = client.invoke_endpoint_with_response_stream(EndpointName=name, Body=body, **more)
        with contextlib.closing(answer["Body"]) as events:
            for event in events:
                pieces.append(event["PayloadPart"]["Bytes"])
                seen(len(pieces))
        return pieces

    return await asyncio.to_thread(read)


async def failure(call: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await call
    return caught.value


async def test_an_invocation_goes_to_the_container_and_back(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(variants={"blue": 1})
        await world.start(spec)
        answer = await invoke(world, spec.name, ContentType="text/x-verse", CustomAttributes="trace=7")
        assert answer["Body"].read() == b"hello"
        assert answer["ContentType"] == "text/x-verse"
        assert answer["InvokedProductionVariant"] == "blue"
        assert answer["CustomAttributes"] == "trace=7"


async def test_only_the_headers_of_the_api_reach_the_container(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        url = f"{world.url}/endpoints/{spec.name}/invocations"
        sent = {
            "Content-Type": "application/json",
            "Accept": "application/jsonlines",
            "X-Amzn-SageMaker-Inference-Id": "one",
            "X-Amzn-SageMaker-Session-Id": "NEW_SESSION",
            "X-Custom": "stripped",
            "Authorization": "stripped",
            "Cookie": "stripped=1",
        }
        async with aiohttp.ClientSession() as session, session.post(url, data='{"do": {}}', headers=sent) as answer:
            found = (await answer.json())["headers"]
        assert "stripped" not in json.dumps(found)
        assert found["Accept"] == "application/jsonlines"
        assert found["X-Amzn-SageMaker-Inference-Id"] == "one"
        assert found["X-Amzn-SageMaker-Session-Id"] == "NEW_SESSION"


@pytest.mark.parametrize(("status", "side"), [(400, "client"), (503, "server")])
async def test_a_containers_error_is_a_model_error(status: int, side: str, tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        error = await failure(invoke(world, spec.name, json.dumps({"do": {"status": status}}).encode()))
        found = error.response
        (instance,) = world.instances(spec.name)
        assert found["Error"]["Code"] == "ModelError"
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert found["Error"]["Message"].startswith(f'Received {side} error ({status}) from primary with message "{{')
        assert f"logEventViewer:group=/aws/sagemaker/Endpoints/{spec.name} in account {ACCOUNT}" in str(error)
        assert found["OriginalStatusCode"] == status
        assert json.loads(found["OriginalMessage"])["did"] == {"status": status}
        group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{spec.name}"
        assert found["LogStreamArn"] == f"{group}:log-stream:AllTraffic/{instance.id}"


async def test_an_invocation_has_so_much_time(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=Limits(invocation=1)) as world:
        spec = endpoint()
        await world.start(spec)
        began = time.monotonic()
        error = await failure(invoke(world, spec.name, b'{"do": {"sleep": 60}}'))
        assert 1 <= time.monotonic() - began < 20
        assert "Received server error (0) from primary" in str(error)
        assert "Your invocation timed out while waiting for a response from container primary." in str(error)
        assert error.response["OriginalStatusCode"] == 0


async def test_a_container_that_dies_before_it_answers(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        error = await failure(invoke(world, spec.name, b'{"do": {"exit": 1}}'))
        assert "The connection to container primary broke before it answered" in str(error)


async def test_while_no_instance_lives_the_service_is_unavailable(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        world.instances(spec.name)[0].healthy = False
        error = await failure(invoke(world, spec.name))
        assert error.response["Error"]["Code"] == "ServiceUnavailable"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503


async def test_what_is_not_in_service_is_not_found(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        for call in (invoke(world, "nobody"), stream(world, "nobody", {})):
            error = await failure(call)
            assert error.response["Error"] == {
                "Code": "ValidationError",
                "Message": f"Endpoint nobody of account {ACCOUNT} not found.",
            }
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        starting = endpoint(environment={"SLOW_START": "1000"})
        task = asyncio.create_task(world.start(starting))
        await until(lambda: world.fleet.last_lines(starting.name, 1))
        assert "not found" in str(await failure(invoke(world, starting.name)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.fleet.stop(starting.name)


async def test_the_target_variant_is_asked(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(variants={"all": 1, "none": 0})
        await world.start(spec)
        assert (await invoke(world, spec.name))["InvokedProductionVariant"] == "all"
        assert (await invoke(world, spec.name, TargetVariant="none"))["InvokedProductionVariant"] == "none"
        error = await failure(invoke(world, spec.name, TargetVariant="other"))
        assert error.response["Error"]["Code"] == "ValidationError"
        assert "other" in str(error)


async def test_parameters_are_checked_against_the_model(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        error = await failure(invoke(world, spec.name, CustomAttributes="x" * 1025))
        assert error.response["Error"]["Code"] == "ValidationError"
        assert "at 'customAttributes' failed to satisfy constraint: Member must have length less than" in str(error)
        assert "'endpointName' failed to satisfy constraint" in str(await failure(invoke(world, "no_such_name")))


async def test_a_body_may_have_so_many_bytes(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=Limits(payload=1000)) as world:
        spec = endpoint()
        await world.start(spec)
        assert (await invoke(world, spec.name, b"x" * 1000))["Body"].read() == b"x" * 1000
        error = await failure(invoke(world, spec.name, b"x" * 1001))
        assert str(error).endswith(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less "
            "than or equal to 1000"
        )


async def test_a_stream_comes_piece_by_piece(tmp_path: Path) -> None:
    """The container sends a piece only when the client has the one before."""
    (gate := tmp_path / "gate").mkdir()
    async with hosted(tmp_path / "state") as world:
        spec = endpoint()
        await world.start(spec)
        sent = [f"piece {number}" for number in range(5)]
        do = {"stream": sent, "gate": str(gate)}
        pieces = await stream(world, spec.name, do, lambda count: (gate / str(count)).touch())
        assert [piece.decode() for piece in pieces] == sent


async def test_the_headers_of_a_stream(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        ask = world.client("sagemaker-runtime").invoke_endpoint_with_response_stream

        def read() -> tuple[Any, list[bytes]]:
            answer = ask(
                EndpointName=spec.name,
                Body=b"verse",
                ContentType="text/x-verse",
                CustomAttributes="trace=7",
                Accept="text/x-any",
            )
            return answer, [event["PayloadPart"]["Bytes"] for event in answer["Body"]]

        answer, pieces = await asyncio.to_thread(read)
        assert pieces == [b"verse"]
        assert (answer["ContentType"], answer["CustomAttributes"]) == ("text/x-verse", "trace=7")
        assert answer["InvokedProductionVariant"] == "AllTraffic"


async def test_a_stream_that_cannot_begin_is_a_model_error(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=Limits(invocation=4)) as world:
        spec = endpoint()
        await world.start(spec)
        error = await failure(stream(world, spec.name, {"status": 400}))
        assert (error.response["Error"]["Code"], error.response["OriginalStatusCode"]) == ("ModelError", 400)
        error = await failure(stream(world, spec.name, {"sleep": 60}))
        assert "Your invocation timed out" in str(error)


async def test_a_container_that_dies_within_a_stream_ends_it_with_an_exception(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        with pytest.raises(EventStreamError) as caught:
            await stream(world, spec.name, {"stream": ["a", "b", "c"], "break_after": 2})
        assert caught.value.response["Error"]["Code"] == "ModelStreamError"
        assert "was reset or closed" in str(caught.value)


async def test_a_fault_of_our_own_ends_a_stream_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: bytes) -> bytes:
        raise ValueError("a fault")

    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        monkeypatch.setattr(eventstream, "payload_parts", wrong)
        with pytest.raises(EventStreamError, match=r"InternalStreamFailure.*Try your request again"):
            await stream(world, spec.name, {"stream": ["a"]})


async def test_a_stream_has_so_much_time(tmp_path: Path) -> None:
    async with hosted(tmp_path, limits=Limits(stream=1)) as world:
        spec = endpoint()
        await world.start(spec)
        with pytest.raises(EventStreamError, match=r"ModelStreamError.*within 1 seconds"):
            await stream(world, spec.name, {"stream": ["a"] * 100, "pause": 0.1})


async def test_a_client_that_goes_away_frees_the_instance(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        (instance,) = world.instances(spec.name)
        body = json.dumps({"do": {"stream": ["a"] * 1000, "pause": 0.1}})
        url = f"{world.url}/endpoints/{spec.name}/invocations-response-stream"
        async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
            await answer.content.readany()
            assert instance.outstanding == 1
        await until(lambda: instance.outstanding == 0)


async def test_bodies_are_kept_only_when_asked(tmp_path: Path) -> None:
    kept = tmp_path / "bodies.jsonl"
    async with hosted(tmp_path / "one", log_bodies=kept) as world:
        spec = endpoint()
        await world.start(spec)
        await invoke(world, spec.name, b"a secret", ContentType="text/plain", CustomAttributes="trace=7")
        await invoke(world, spec.name, b"\xff\xfe")
        await stream(world, spec.name, {"stream": ["a", "b"]})
        await failure(invoke(world, spec.name, b'{"do": {"status": 400}}'))
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    first, second, third, fourth = lines
    assert (first["operation"], first["endpoint"], first["body"], first["answer"], first["status"]) == (
        ("InvokeEndpoint", spec.name, "a secret", "a secret", 200)
    )
    assert first["headers"]["X-Amzn-SageMaker-Custom-Attributes"] == "trace=7"
    assert second["body_base64"] == second["answer_base64"] == "//4="
    assert (third["operation"], third["answer"]) == ("InvokeEndpointWithResponseStream", "ab")
    assert fourth["status"] == 400
    assert kept.stat().st_mode & 0o077 == 0
    async with hosted(tmp_path / "two") as world:
        await world.start(spec)
        await invoke(world, spec.name, b"a secret")
    assert not [path for path in (tmp_path / "two").rglob("*") if path.is_file()]
