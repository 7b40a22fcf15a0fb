from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import configured, status
from tests.support.emulator import Emulator, emulating
from tests.support.hosting import World, endpoint, hosted, until

from bloomery.cli.commands.sagemaker_local import emulate
from bloomery.errors import ConfigurationError, DeploymentFailure
from bloomery.sagemaker.emulator.faults import KINDS, Faults, Kind, Rule


def standing(*texts: str) -> Faults:
    faults = Faults()
    for text in texts:
        faults.add(Rule.parse(text))
    return faults


# --- the rules themselves
def test_a_rule_is_read() -> None:
    assert Rule.parse("SlowStart,seconds=2.5,instance_type=ml[.]g5[.].*,times=3") == Rule(
        Kind.SLOW_START, seconds=2.5, instance_type="ml[.]g5[.].*", times=3
    )
    assert Rule.of({"kind": "ModelError", "status": 503, "fraction": 0.5}) == Rule(
        Kind.MODEL_ERROR, status=503, fraction=0.5
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Explosion", "there is InsufficientInstanceCapacity, "),
        ("SlowStart", "seconds are needed"),
        ("SlowStart,seconds", "is no NAME=VALUE"),
        ("SlowStart,seconds=long", "seconds=long"),
        ("SlowStart,seconds=nan", "is not between 0 and"),
        ("ContainerDies", "either seconds or invocations"),
        ("ContainerDies,seconds=1,invocations=1", "either seconds or invocations"),
        ("ThrottlingException,endpoint=e", "there is times, fraction, operation, not 'endpoint'"),
        ("ModelError,endpoint=(", "endpoint=\\("),
        ("ModelError,status=200", "is not between 400 and 599"),
        ("ModelError,times=0", "is not between 1 and"),
    ],
)
def test_a_wrong_rule_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Rule.parse(text)


def test_a_rule_strikes_as_often_as_it_says_and_only_what_fits() -> None:
    faults = standing("InsufficientInstanceCapacity,instance_type=ml.p4d.*,times=2")
    assert faults.strike(Kind.INSUFFICIENT_INSTANCE_CAPACITY, instance_type="ml.g5.xlarge") is None
    assert faults.strike(Kind.THROTTLING, operation="CreateModel") is None
    struck = [
        faults.strike(Kind.INSUFFICIENT_INSTANCE_CAPACITY, instance_type="ml.p4d.24xlarge") is not None
        for _ in range(4)
    ]
    assert struck == [True, True, False, False]
    assert [each["struck"] for each in faults.list()] == [2]


def test_a_fraction_strikes_by_chance() -> None:
    faults = standing("ModelError,fraction=0.5")
    struck = sum(faults.strike(Kind.MODEL_ERROR, endpoint="e") is not None for _ in range(1000))
    assert 350 < struck < 650  # nine standard deviations and more
    assert standing("ModelError,fraction=0").strike(Kind.MODEL_ERROR) is None


def test_the_help_names_every_kind_and_what_it_takes() -> None:
    told = emulate.__annotations__["fault"]
    for kind, (_, names) in KINDS.items():
        assert kind in told
        assert all(name in told for name in names)


# --- what they do to containers
async def invoked(world: World, name: str) -> int:
    """The status with which one invocation ends."""
    try:
        await world.ask(name, {})
    except ClientError as error:
        return int(error.response["OriginalStatusCode"])
    return 200


async def test_no_instance_can_be_had(tmp_path: Path) -> None:
    faults = standing("InsufficientInstanceCapacity,instance_type=ml.g5.xlarge,times=1")
    async with hosted(tmp_path, faults=faults) as world:
        with pytest.raises(DeploymentFailure, match="due to InsufficientInstanceCapacity error"):
            await world.start(endpoint())
        await world.start(endpoint())


async def test_a_container_starts_slowly(tmp_path: Path) -> None:
    async with hosted(tmp_path, faults=standing("SlowStart,seconds=1.5")) as world:
        began = time.monotonic()
        await world.start(endpoint())
        assert time.monotonic() - began >= 1.5
        with pytest.raises(DeploymentFailure, match="did not pass the ping health check"):
            await world.start(endpoint(startup=1))


async def test_a_container_dies_by_its_third_invocation(tmp_path: Path) -> None:
    async with hosted(tmp_path, faults=standing("ContainerDies,invocations=2,times=1")) as world:
        spec = endpoint()
        await world.start(spec)
        assert [await invoked(world, spec.name) for _ in range(3)] == [200, 200, 0]
        await until(lambda: "[sagemaker-local] the container is healthy again" in world.fleet.last_lines(spec.name, 9))
        assert [await invoked(world, spec.name) for _ in range(3)] == [200, 200, 200]


async def test_a_container_dies_after_seconds(tmp_path: Path) -> None:
    async with hosted(tmp_path, faults=standing("ContainerDies,seconds=0.5,times=1")) as world:
        spec = endpoint()
        await world.start(spec)
        await until(lambda: "[sagemaker-local] the container is healthy again" in world.fleet.last_lines(spec.name, 9))
        said = world.fleet.last_lines(spec.name, 9)
        assert "[sagemaker-local] a fault rule kills the container" in said
        assert await invoked(world, spec.name) == 200


async def test_models_fail(tmp_path: Path) -> None:
    faults = standing("ModelError,status=503,times=2,endpoint=doomed")
    async with hosted(tmp_path, faults=faults) as world:
        for name in ("doomed", "other"):
            await world.start(endpoint(name))
        assert [await invoked(world, "other"), await invoked(world, "doomed")] == [200, 503]
        client = world.client("sagemaker-runtime")
        with pytest.raises(client.exceptions.ModelError) as caught:
            await asyncio.to_thread(
                client.invoke_endpoint_with_response_stream, EndpointName="doomed", Body=b'{"do": {"stream": ["a"]}}'
            )
        assert caught.value.response["OriginalStatusCode"] == 503
        assert await invoked(world, "doomed") == 200


async def test_invocations_are_throttled(tmp_path: Path) -> None:
    async with hosted(tmp_path, faults=standing("ThrottlingException,operation=InvokeEndpoint,times=1")) as world:
        spec = endpoint()
        await world.start(spec)
        with pytest.raises(ClientError) as caught:
            await world.ask(spec.name, {})
        assert caught.value.response["Error"] == {"Code": "ThrottlingException", "Message": "Rate exceeded"}
        assert await invoked(world, spec.name) == 200


# --- what they do to the control plane, added and removed at run time
@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Emulator]:
    with emulating(
        tmp_path / "state", "--fault", "ThrottlingException,operation=ListModels,times=1", stand_in=True
    ) as it:
        yield it


def route(emulator: Emulator, method: str, path: str = "", document: Any = None) -> tuple[int, Any]:
    """Status and answer of /_bloomery/faults."""
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"{emulator.url}/_bloomery/faults{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_rules_come_and_go_at_run_time(faults: Emulator, name: str) -> None:
    sagemaker = faults.client("sagemaker")
    with pytest.raises(ClientError, match="Rate exceeded"):
        sagemaker.list_models()
    sagemaker.list_models()
    assert route(faults, "DELETE")[0] == 200
    exceeded = {"kind": "ResourceLimitExceeded", "instance_type": "ml[.]p4d[.].*"}
    code, added = route(faults, "POST", document=exceeded)
    assert code == 201
    number = route(faults, "POST", document={"kind": "ResourceLimitExceeded", "operation": "CreateModel"})[1]["id"]
    with pytest.raises(sagemaker.exceptions.ResourceLimitExceeded):
        configured(sagemaker, name)
    route(faults, "DELETE", f"/{number}")
    configured(sagemaker, name)
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    error = caught.value.response["Error"]
    assert error["Code"] == "ResourceLimitExceeded"
    assert error["Message"].startswith(
        "The account-level service limit 'ml.p4d.24xlarge for endpoint usage' is 0 Instances, with current utilization "
        "of 0 Instances and a request delta of 1 Instances."
    )
    found = route(faults, "GET")[1]
    operations = "CreateEndpoint|UpdateEndpoint|UpdateEndpointWeightsAndCapacities"
    assert found["faults"] == [{"id": added["id"], **exceeded, "operation": operations, "struck": 1}]
    assert set(found["kinds"]) == set(Kind)
    assert route(faults, "DELETE", f"/{added['id']}") == (200, {"faults": []})
    assert route(faults, "DELETE", f"/{added['id']}")[0] == 404
    code, refused = route(faults, "POST", document={"kind": "Explosion"})
    assert (code, "there is InsufficientInstanceCapacity" in refused["error"]) == (400, True)
    assert route(faults, "POST", document=["kind"])[0] == 400
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert status(sagemaker, name) in ("Creating", "InService")
