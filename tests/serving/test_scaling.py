"""More and fewer groups while requests come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.worker_models import StartModel, alive, ask, body, notes, until

from bloomery.errors import ModelLoadError
from bloomery.serving.model import Model


async def two_groups(start_model: StartModel) -> Model:
    model = await start_model(min_workers=2, max_workers=2)
    await until(lambda: all(group.state == "ready" for group in model.groups))
    return model


async def answered(model: Model, do: str, **arguments: object) -> dict[str, object]:
    async with model.submit(ask(do, **arguments)) as answer:
        return dict(body(answer))


async def test_a_new_group_serves_while_the_first_is_busy(start_model: StartModel, tmp_path: Path) -> None:
    model = await start_model()
    gate = tmp_path / "gate"
    held = asyncio.create_task(answered(model, "wait", file=str(gate)))
    await until(lambda: model.status().groups[0].busy)

    await model.scale(2, 2)

    other = await answered(model, "echo")
    assert not held.done()
    gate.touch()
    assert (await held)["pid"] != other["pid"]
    assert (model.settings.min_workers, model.settings.max_workers) == (2, 2)


async def test_scaling_down_lets_the_running_request_finish(start_model: StartModel, tmp_path: Path) -> None:
    model = await two_groups(start_model)
    gate = tmp_path / "gate"
    held = [asyncio.create_task(answered(model, "wait", file=str(gate))) for _ in range(2)]
    await until(lambda: all(group.busy for group in model.status().groups))
    pids = {pid for group in model.status().groups for pid in group.pids}

    scaling = asyncio.create_task(model.scale(1, 1))
    await until(lambda: len(model.groups) == 1)
    assert not scaling.done()
    gate.touch()
    answers = [await each for each in held]
    await scaling

    assert {answer["pid"] for answer in answers} == pids
    assert [alive(pid) for pid in pids].count(True) == 1


async def test_no_request_is_lost_while_groups_come_and_go(start_model: StartModel) -> None:
    model = await start_model()
    flood = asyncio.gather(*(answered(model, "echo", text=number) for number in range(200)))

    for count in (3, 1, 2):
        await model.scale(count, count)

    assert [answer["text"] for answer in await flood] == list(range(200))


async def test_the_group_that_goes_is_an_idle_one(start_model: StartModel, tmp_path: Path) -> None:
    model = await two_groups(start_model)
    gate = tmp_path / "gate"
    held = asyncio.create_task(answered(model, "wait", file=str(gate)))
    await until(lambda: any(group.busy for group in model.groups))

    await model.scale(1, 1)  # would wait for the request, if it had chosen the busy group

    assert model.groups[0].busy
    gate.touch()
    await held


async def test_a_new_group_that_cannot_load_leaves_the_model_as_it_was(start_model: StartModel, tmp_path: Path) -> None:
    model = await start_model()
    (tmp_path / "m" / "model.py").write_text("raise RuntimeError('broken meanwhile')")

    with pytest.raises(ModelLoadError, match="broken meanwhile"):
        await model.scale(2, 3)

    assert (model.settings.min_workers, model.settings.max_workers) == (1, 1)
    assert len(model.groups) == 1
    assert (await answered(model, "echo", text="still"))["text"] == "still"


async def test_stopping_the_model_ends_groups_that_are_on_their_way_out(
    start_model: StartModel, tmp_path: Path
) -> None:
    model = await two_groups(start_model)
    held = [asyncio.create_task(answered(model, "wait", file=str(tmp_path / "never"))) for _ in range(2)]
    await until(lambda: all(group.busy for group in model.status().groups))
    pids = {pid for group in model.status().groups for pid in group.pids}
    scaling = asyncio.create_task(model.scale(1, 1))
    await until(lambda: len(model.groups) == 1)

    await model.stop(grace=0)

    await scaling
    assert not any(alive(pid) for pid in pids)
    assert all(isinstance(each, Exception) for each in await asyncio.gather(*held, return_exceptions=True))


async def test_each_group_loads_once(start_model: StartModel, tmp_path: Path) -> None:
    model = await start_model()
    await model.scale(3, 3)
    assert len(notes(tmp_path / "m", "loads")) == 3
