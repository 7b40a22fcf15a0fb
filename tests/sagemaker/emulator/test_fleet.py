from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.support.hosting import World, endpoint, hosted, packed, until

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.containers import container, isolation
from bloomery.sagemaker.emulator.containers.fleet import LocalFleet
from bloomery.sagemaker.emulator.deployment import EndpointSpec, ImageRule, ModelData, Routing


def left(world: World) -> list[object]:
    """Processes below this one that belong to containers, and what containers have on disk."""
    return [*_containers(psutil.Process()), *(world.around.state / "instances").glob("*")]


def _containers(parent: psutil.Process) -> Iterator[psutil.Process]:
    """Those of the fleet in this process: an emulator that other tests have left running has its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in parent.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                if "echo_container.py" in command and "sagemaker-local" not in command:
                    yield process
                if "sagemaker-local" not in command:
                    yield from _containers(process)


async def failure(world: World, spec: EndpointSpec) -> str:
    with pytest.raises(DeploymentFailure) as caught:
        await world.start(spec)
    assert world.fleet.serving(spec.name) is None
    assert left(world) == []
    return str(caught.value)


async def test_a_container_gets_what_sagemaker_gives_it(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        uri = world.put("model.tar.gz", packed({"code/model.py": b"x = 1"}))
        spec = endpoint(environment={"TENSOR_PARALLEL_DEGREE": "2"}, data=ModelData(archive=uri))
        phases: list[str] = []
        await world.start(spec, phases.append)
        environment = await world.ask(spec.name, {"environment": True})
        assert environment["TENSOR_PARALLEL_DEGREE"] == "2"
        assert environment["AWS_ENDPOINT_URL"] == world.around.url
        assert list(await world.ask(spec.name, {"files": environment["SM_MODEL_DIR"]})) == ["code/model.py"]
        assert "started with serve" in world.fleet.last_lines(spec.name, 10)
        assert phases[0] == "downloading the model data"
        assert phases[-2:] == ["starting the container", "waiting for /ping"]


@pytest.mark.skipif(not isolation.available(), reason="namespaces take root and unshare")
async def test_the_model_is_at_opt_ml_model_read_only(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(data=ModelData(archive=world.put("model.tar.gz", packed({"code/model.py": b"x = 1"}))))
        await world.start(spec)
        assert (await world.ask(spec.name, {"environment": True}))["SM_MODEL_DIR"] == "/opt/ml/model"
        assert list(await world.ask(spec.name, {"files": "/opt/ml/model"})) == ["code/model.py"]
        assert await world.ask(spec.name, {"write": "/opt/ml/model/x"}) == {"error": "Read-only file system"}
        assert (await world.ask(spec.name, {}))["pid"] == 1
        assert not any(Path("/opt/ml/model").iterdir())


async def test_without_namespaces_the_command_is_told_where_the_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "available", lambda: False)
    async with hosted(tmp_path) as world:
        spec = endpoint(data=ModelData(archive=world.put("model.tar.gz", packed({"one": b"1"}))))
        await world.start(spec)
        directory = (await world.ask(spec.name, {"environment": True}))["SM_MODEL_DIR"]
        assert Path(directory).is_relative_to(tmp_path)
        assert await world.ask(spec.name, {"files": directory}) == {"one": "0o100444"}
        await world.fleet.stop(spec.name)
        assert left(world) == []


async def test_a_container_that_dies_before_it_is_healthy_fails(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(environment={"DIE_AT_START": "3"})
        assert await failure(world, spec) == (
            "The primary container for production variant AllTraffic did not pass the ping health check. Please check "
            "CloudWatch logs for this endpoint."
        )
        assert world.fleet.last_lines(spec.name, 2) == [
            "cannot find the weights",
            "[sagemaker-local] the container ended (exit status 3) before it answered /ping with 200",
        ]


async def test_a_command_that_cannot_run_fails(tmp_path: Path) -> None:
    async with hosted(tmp_path, ImageRule("^none", "/no/such/program")) as world:
        assert (await failure(world, endpoint(image="none"))).startswith("CannotStartContainerError. ")


async def test_a_slow_container_has_exactly_the_time_it_was_given(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(environment={"SLOW_START": "1000", "IGNORE_TERM": "1"}, startup=2)
        began = time.monotonic()
        text = await failure(world, spec)
        assert 2 <= time.monotonic() - began < 15
        assert "did not pass the ping health check" in text
        last = world.fleet.last_lines(spec.name, 1)
        assert "no 200 from /ping within 2 s (ContainerStartupHealthCheckTimeoutInSeconds)" in last[0]


async def test_one_that_is_slow_but_in_time_is_waited_for(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(environment={"SLOW_START": "1"}, startup=30)
        began = time.monotonic()
        await world.start(spec)
        assert time.monotonic() - began >= 1


async def test_the_failure_of_one_instance_ends_all(tmp_path: Path) -> None:
    async with hosted(tmp_path, ImageRule("^bad", "/no/such/program")) as world:
        good, bad = endpoint(variants={"good": 1}, count=2), endpoint(image="bad", variants={"bad": 1})
        both = EndpointSpec(good.name, good.arn, "config", (*good.variants, *bad.variants))
        assert "variant bad" in await failure(world, both)


async def test_what_is_being_created_can_be_stopped(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(environment={"SLOW_START": "1000"}, count=2)
        starting = asyncio.create_task(world.start(spec))
        await until(lambda: len(world.fleet.last_lines(spec.name, 10)) >= 2)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await world.fleet.stop(spec.name)
        assert left(world) == []


async def test_one_that_dies_in_service_is_started_again(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        client = world.client("sagemaker-runtime")
        with pytest.raises(client.exceptions.ModelError):
            await world.ask(spec.name, {"exit": 5})
        await until(lambda: "[sagemaker-local] the container is healthy again" in world.fleet.last_lines(spec.name, 9))
        assert any(
            "ended (exit status 5); it is started again" in line for line in world.fleet.last_lines(spec.name, 9)
        )
        assert (await world.ask(spec.name, {}))["did"] == {}
        await world.fleet.stop(spec.name)
        assert left(world) == []


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        await world.start(endpoint(environment={"IGNORE_TERM": "1"}))
        began = time.monotonic()
        await world.fleet.close(1)
        assert 1 <= time.monotonic() - began < 20
        assert left(world) == []


async def test_unknown_names_are_none_of_its_business(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        await world.fleet.stop("nobody")
        assert world.fleet.last_lines("nobody", 5) == []


async def test_scaling_adds_and_removes_instances(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint()
        await world.start(spec)
        await world.fleet.scale(spec.name, "AllTraffic", 3)
        assert [instance.healthy for instance in world.instances(spec.name)] == [True] * 3
        await world.fleet.scale(spec.name, "AllTraffic", 1)
        assert len(world.instances(spec.name)) == 1
        assert (await world.ask(spec.name, {}))["did"] == {}
        await world.fleet.scale(spec.name, "AllTraffic", 1)
        await world.fleet.scale(spec.name, "AllTraffic", 0)
        assert left(world) == []


async def test_the_instance_with_the_fewest_requests_is_next(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(count=2, routing=Routing.LEAST_OUTSTANDING_REQUESTS)
        await world.start(spec)
        busy, idle = world.instances(spec.name)
        busy.outstanding = 1
        running = world.fleet.serving(spec.name)
        assert running is not None
        assert {running.variants["AllTraffic"].choose() for _ in range(20)} == {idle}
        busy.outstanding, busy.healthy, idle.healthy = 0, False, False
        assert running.choose() is None


async def test_a_busy_instance_is_as_likely_as_another_at_random(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(count=2, routing=Routing.RANDOM)
        await world.start(spec)
        busy, idle = world.instances(spec.name)
        busy.outstanding = 1
        running = world.fleet.serving(spec.name)
        assert running is not None
        assert {running.variants["AllTraffic"].choose() for _ in range(60)} == {busy, idle}
        busy.outstanding = 0


async def test_variants_are_chosen_by_weight(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        spec = endpoint(variants={"much": 3, "little": 1, "none": 0})
        await world.start(spec)
        running = world.fleet.serving(spec.name)
        assert running is not None
        random.seed(1)
        chosen = Counter(variant.spec.name for _ in range(1000) if (variant := running.choose()))
        assert 650 < chosen["much"] < 850
        assert chosen["little"] == 1000 - chosen["much"]


async def test_what_a_killed_emulator_left_is_removed(tmp_path: Path) -> None:
    scratch = Path(os.environ.get("TMPDIR", "/tmp")) / f"bloomery-sm-test-{os.getpid()}"
    (scratch / "home").mkdir(parents=True)
    kept = tmp_path / "kept"
    kept.mkdir()
    records = tmp_path / "instances"
    records.mkdir()
    (records / "one.json").write_text(f'{{"scratch": "{scratch}", "docker": []}}')
    (records / "two.json").write_text(f'{{"scratch": "{kept}", "docker": []}}')
    (records / "three.json").write_text('{"scra')
    container.sweep(tmp_path)
    assert not scratch.exists()
    assert kept.exists()
    assert list(records.iterdir()) == []


def test_it_is_what_the_control_plane_expects() -> None:
    from bloomery.sagemaker.emulator.deployment import Fleet

    expected = {name for name in vars(Fleet) if not name.startswith("_")}
    assert expected == {name for name in vars(LocalFleet) if name in expected}
