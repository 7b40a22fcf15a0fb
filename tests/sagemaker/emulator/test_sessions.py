from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.test_runtime import failure, invoke
from tests.support.hosting import World, endpoint, hosted, until

from bloomery.sagemaker.emulator.deployment import EndpointSpec, Routing

_PORT = "SAGEMAKER_BIND_TO_PORT"  # tells one container from another


def said(session: str, seconds: float = 600) -> dict[str, Any]:
    """What a container is asked to do so that it opens a session."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"environment": True, "headers": {"X-Amzn-SageMaker-New-Session-Id": f"{session}; Expires={expires}"}}


async def opened(world: World, spec: EndpointSpec, session: str, seconds: float = 600) -> str:
    """The container that has the session now."""
    return str((await world.ask(spec.name, said(session, seconds), SessionId="NEW_SESSION"))[_PORT])


async def answering(world: World, spec: EndpointSpec, **more: Any) -> set[str]:
    """The containers that answered 20 requests."""
    return {(await world.ask(spec.name, {"environment": True}, **more))[_PORT] for _ in range(20)}


async def refused(world: World, spec: EndpointSpec, session: str) -> None:
    error: ClientError = await failure(invoke(world, spec.name, SessionId=session))
    assert error.response["Error"]["Code"] == "ValidationError"
    assert f"Session {session} of endpoint {spec.name}" in str(error)


@pytest.mark.parametrize("routing", list(Routing))
async def test_a_session_stays_with_its_instance(tmp_path: Path, routing: Routing) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(count=3, routing=routing)
        await world.start(spec)
        first, second = await opened(world, spec, "one"), await opened(world, spec, "two")
        assert await answering(world, spec, SessionId="one") == {first}
        assert await answering(world, spec, SessionId="two") == {second}
        assert len(await answering(world, spec)) > 1


async def test_the_client_hears_the_id_and_the_container_too(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        header = "one; Expires=2099-01-02T03:04:05Z"
        body = b'{"do": {"headers": {"X-Amzn-SageMaker-New-Session-Id": "%s"}}}' % header.encode()
        assert (await invoke(world, spec.name, body, SessionId="NEW_SESSION"))["NewSessionId"] == header
        answer = await world.ask(spec.name, {}, SessionId="one")
        assert answer["headers"]["X-Amzn-SageMaker-Session-Id"] == "one"


async def test_a_session_ends_when_it_is_closed_expires_or_loses_its_instance(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(count=2)
        await world.start(spec)
        await refused(world, spec, "never-opened")
        await opened(world, spec, "old", seconds=-1)
        await refused(world, spec, "old")

        await opened(world, spec, "one")
        body = b'{"do": {"headers": {"X-Amzn-SageMaker-Closed-Session-Id": "one"}}}'
        assert (await invoke(world, spec.name, body, SessionId="one"))["ClosedSessionId"] == "one"
        await refused(world, spec, "one")

        await opened(world, spec, "two")
        with pytest.raises(ClientError):
            await world.ask(spec.name, {"exit": 1}, SessionId="two")
        healthy = "[sagemaker-local] the container is healthy again"  # it knows no sessions now
        await until(lambda: healthy in world.fleet.last_lines(spec.name, 20))
        await refused(world, spec, "two")
