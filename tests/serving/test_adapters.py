"""Adapters through a handler that has the functions for them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.worker_models import FAST, HANDLER, until

from bloomery.errors import BadRequestError, ConflictError, HandlerRefusalError, ModelLoadError, NotFoundError
from bloomery.protocol.frames import Request
from bloomery.serving.model import Model
from bloomery.settings.model import ModelSettings
from bloomery.workers.adapter import Adapter

ADAPTING = """
import json, os, time
from pathlib import Path
from djl_python import Output

ADAPTERS = {}

def register_adapter(inputs):
    name, src = inputs.get_property("name"), inputs.get_property("src")
    if src == "bad":
        raise ValueError("no such weights")
    if src == "once":
        Path("taken").touch(exist_ok=False)
    content = {key: bytes(value).decode() for key, value in inputs.get_content()}
    ADAPTERS[name] = {"src": src, "alias": inputs.get_property("alias"), "options": content}
    return Output()

def update_adapter(inputs):
    ADAPTERS[inputs.get_property("name")]["src"] = inputs.get_property("src")
    return Output()

def unregister_adapter(inputs):
    del ADAPTERS[inputs.get_property("name")]
    return Output()

def handle(inputs):
    if inputs.is_empty():
        return None
    ask = inputs.get_as_json()
    while "gate" in ask and not Path(ask["gate"]).exists():
        time.sleep(0.01)
    return Output().add_as_json({"pid": os.getpid(), "adapters": ADAPTERS})
"""

Start = Callable[..., Awaitable[Model]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a model in ``tmp_path/m`` and stops it."""
    models = []

    async def start(source: str = ADAPTING, **changes: object) -> Model:
        directory = tmp_path / "m"
        directory.mkdir(exist_ok=True)
        (directory / "model.py").write_text(source)
        model = Model(ModelSettings(name="m", model_dir=directory, **changes), limits=FAST)  # type: ignore[arg-type]
        models.append(model)
        await model.start()
        await model.loaded()
        await until(lambda: all(group.state == "ready" for group in model.groups))
        return model

    yield start
    for model in models:
        await model.stop(grace=0)


async def seen(model: Model, **ask: object) -> dict[str, object]:
    """What one group's handler knows."""
    async with model.submit(Request({}, [("data", json.dumps(ask).encode())])) as answer:
        return dict(json.loads(answer.content[0][1]))


async def seen_everywhere(model: Model, tmp_path: Path) -> dict[object, object]:
    """What every group's handler knows, by process."""
    gate = tmp_path / f"gate-{os.urandom(4).hex()}"
    tasks = [asyncio.create_task(seen(model, gate=str(gate))) for _ in model.groups]
    await until(lambda: all(group.busy for group in model.groups))
    gate.touch()
    return {answer["pid"]: answer["adapters"] for answer in await asyncio.gather(*tasks)}


async def test_every_group_registers_with_name_alias_src_and_options(start: Start, tmp_path: Path) -> None:
    model = await start(min_workers=2)
    await model.adapters.register(Adapter("a", "/weights", options={"rank": "8"}))

    everywhere = await seen_everywhere(model, tmp_path)
    assert len(everywhere) == 2
    for known in everywhere.values():
        assert known == {"a": {"src": "/weights", "alias": "a", "options": {"rank": "8"}}}


async def test_a_busy_group_is_waited_for_and_nobody_overtakes(start: Start, tmp_path: Path) -> None:
    model = await start()
    gate = tmp_path / "gate"
    first = asyncio.create_task(seen(model, gate=str(gate)))
    await until(lambda: model.groups[0].busy)
    second = asyncio.create_task(seen(model))
    await until(lambda: model.status().queued == 1)
    registering = asyncio.create_task(model.adapters.register(Adapter("a", "/weights")))
    await until(lambda: "a" in model.adapters.known)
    gate.touch()

    assert (await first)["adapters"] == {}
    assert list((await second)["adapters"]) == ["a"]  # type: ignore[call-overload]
    await registering


async def test_a_group_that_restarts_registers_them_before_it_serves(start: Start) -> None:
    model = await start()
    await model.adapters.register(Adapter("a", "/weights"))
    before = await seen(model)
    os.kill(int(before["pid"]), signal.SIGKILL)  # type: ignore[call-overload]
    await until(lambda: model.status().groups[0].restarts == 1)

    after = await seen(model)

    assert after["pid"] != before["pid"]
    assert after["adapters"] == before["adapters"]


async def test_a_group_that_is_added_registers_them_too(start: Start, tmp_path: Path) -> None:
    model = await start()
    await model.adapters.register(Adapter("a", "/weights"))
    await model.scale(2, 2)
    assert all(known for known in (await seen_everywhere(model, tmp_path)).values())


async def test_directories_beside_the_model_are_registered_at_load(start: Start, tmp_path: Path) -> None:
    (tmp_path / "m" / "adapters" / "french").mkdir(parents=True)
    (tmp_path / "m" / "adapters" / ".cache").mkdir()
    model = await start()
    assert list((await seen(model))["adapters"]) == ["french"]  # type: ignore[call-overload]
    assert model.adapters.get("french").src == str(tmp_path / "m" / "adapters" / "french")


async def test_such_a_directory_of_a_handler_without_the_functions_is_left_alone(start: Start, tmp_path: Path) -> None:
    (tmp_path / "m" / "adapters" / "french").mkdir(parents=True)
    model = await start(HANDLER)
    assert model.status().state == "ready"
    assert not model.adapters.known


async def test_such_a_directory_that_is_refused_fails_the_load(start: Start, tmp_path: Path) -> None:
    (tmp_path / "m" / "adapters" / "french").mkdir(parents=True)
    refusing = ADAPTING.replace('src == "bad"', "True")
    with pytest.raises(ModelLoadError, match=r"adapter 'french' .*no such weights"):
        await start(refusing)


async def test_one_that_is_refused_is_not_remembered(start: Start) -> None:
    model = await start(min_workers=2)
    with pytest.raises(HandlerRefusalError, match="no such weights") as caught:
        await model.adapters.register(Adapter("a", "bad"))
    assert caught.value.status == 424
    assert not model.adapters.known


async def test_one_that_some_group_refuses_is_taken_back_from_the_others(start: Start, tmp_path: Path) -> None:
    model = await start(min_workers=2)
    with pytest.raises(HandlerRefusalError, match="File exists"):
        await model.adapters.register(Adapter("a", "once"))
    assert list((await seen_everywhere(model, tmp_path)).values()) == [{}, {}]


async def test_one_that_cannot_come_back_after_a_restart_is_unknown_and_the_model_serves_on(start: Start) -> None:
    model = await start()
    await model.adapters.register(Adapter("a", "once"))
    os.kill(int((await seen(model))["pid"]), signal.SIGKILL)  # type: ignore[call-overload]
    await until(lambda: model.status().groups[0].restarts == 1)

    assert (await seen(model))["adapters"] == {}
    with pytest.raises(NotFoundError, match="not found: a"):
        model.adapters.check("a")


async def test_a_duplicate_is_a_conflict(start: Start) -> None:
    model = await start()
    await model.adapters.register(Adapter("a", "/weights"))
    with pytest.raises(ConflictError, match="a is already registered"):
        await model.adapters.register(Adapter("a", "/others"))


async def test_an_update_reaches_the_handler_and_a_restarted_one(start: Start) -> None:
    model = await start()
    await model.adapters.register(Adapter("a", "/old"))
    await model.adapters.update(Adapter("a", "/new"))
    before = await seen(model)
    os.kill(int(before["pid"]), signal.SIGKILL)  # type: ignore[call-overload]
    await until(lambda: model.status().groups[0].restarts == 1)
    for state in (before, await seen(model)):
        assert state["adapters"]["a"]["src"] == "/new"  # type: ignore[index]


async def test_an_unregistered_one_is_gone(start: Start) -> None:
    model = await start()
    await model.adapters.register(Adapter("a", "/weights"))
    await model.adapters.unregister("a")
    assert (await seen(model))["adapters"] == {}
    for call in (model.adapters.unregister("a"), model.adapters.update(Adapter("a", "/weights"))):
        with pytest.raises(NotFoundError):
            await call


async def test_a_handler_without_the_functions_is_said_to_have_none(start: Start) -> None:
    model = await start(HANDLER)
    with pytest.raises(BadRequestError, match="has no function 'register_adapter'"):
        await model.adapters.register(Adapter("a", "/weights"))


async def test_a_model_that_never_had_one_may_mean_something_else_by_adapter(start: Start) -> None:
    model = await start()
    model.adapters.check("of the power supply")


class TestOtherDispatches:
    ROLLING = (
        ADAPTING.split("def handle")[0]
        + """
def handle(inputs):
    if inputs.is_empty():
        return None
    output = Output()
    for number, item in enumerate(inputs.get_batches()):
        piece = {"data": json.dumps({"adapters": ADAPTERS}), "last": Path("go").exists(), "step_token_num": 1}
        output.add(Output.binary_encode(piece), batch_index=number)
    return output
"""
    )
    ASYNCHRONOUS = ADAPTING.replace("def handle", "async def handle")

    async def test_between_the_steps_of_a_rolling_batch(self, start: Start, tmp_path: Path) -> None:
        model = await start(self.ROLLING, rolling_batch=True)

        async def ask() -> list[bytes]:
            async with model.submit(Request({}, [("data", b"{}")])) as answer:
                assert answer.stream is not None
                return [piece async for piece in answer.stream]

        running = asyncio.create_task(ask())
        await until(lambda: model.groups[0].busy)
        await model.adapters.register(Adapter("a", "/weights"))
        assert not running.done()
        with pytest.raises(HandlerRefusalError, match="no such weights"):
            await model.adapters.register(Adapter("b", "bad"))
        (tmp_path / "m" / "go").touch()
        pieces = await running

        assert json.loads(pieces[0]) == {"adapters": {}}
        assert list(json.loads(pieces[-1])["adapters"]) == ["a"]

    async def test_of_an_asynchronous_handler(self, start: Start) -> None:
        model = await start(self.ASYNCHRONOUS, async_mode=True)
        await model.adapters.register(Adapter("a", "/weights"))
        assert list((await seen(model))["adapters"]) == ["a"]  # type: ignore[call-overload]
        with pytest.raises(HandlerRefusalError, match="no such weights"):
            await model.adapters.register(Adapter("b", "bad"))
