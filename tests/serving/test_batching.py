"""Waiting requests that are answered by one call of the handler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.worker_models import FAST, until

from bloomery.errors import ServiceUnavailableError
from bloomery.protocol.frames import Request
from bloomery.serving.model import Model
from bloomery.settings.model import ModelSettings

HANDLER = """
import json, os, time
from pathlib import Path
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    items = inputs.get_batches()
    asks = [item.get_as_json()["inputs"] for item in items]
    with open("calls", "a") as file:
        print(json.dumps(asks), file=file)
    for ask in asks:
        while ask.startswith("hold") and not Path(ask).exists():
            time.sleep(0.01)
    if "die" in asks:
        os._exit(3)
    if "raise" in asks:
        raise ValueError("one of you is wrong")
    output = Output()
    if not inputs.is_batch():
        return output.add(asks[0].upper())
    for number, ask in enumerate(asks):
        if ask != "forget":
            output.add(ask.upper(), batch_index=number)
    return output
"""


@pytest.fixture
async def start(tmp_path: Path):
    models = []

    async def start(**changes: Any) -> Model:
        (tmp_path / "model.py").write_text(HANDLER)
        models.append(Model(ModelSettings("m", tmp_path, **{"batch_size": 4, **changes}), limits=FAST))
        await models[-1].start()
        await models[-1].loaded()
        return models[-1]

    yield start
    for model in models:
        await model.stop(grace=0)


async def ask(model: Model, inputs: str, **rest: object) -> tuple[int, str]:
    body = json.dumps({"inputs": inputs, **rest}).encode()
    async with model.submit(Request({"Content-Type": "application/json"}, [("data", body)])) as answer:
        return answer.code, answer.content[0][1].decode()


def calls(directory: Path) -> list[list[str]]:
    return [json.loads(line) for line in (directory / "calls").read_text().splitlines()]


async def while_busy(model: Model, directory: Path, *asks: Any) -> list[Any]:
    """The outcomes of requests that all wait while the only group is held."""
    holder = asyncio.create_task(ask(model, "hold"))
    await until(lambda: (directory / "calls").exists())
    waiting = []
    for number, each in enumerate(asks, 1):
        waiting.append(asyncio.create_task(each))
        await until(lambda number=number: model.status().queued == number)
    (directory / "hold").touch()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert await holder == (200, "HOLD")
    return outcomes


async def test_requests_that_waited_together_are_answered_together_each_its_own(start, tmp_path):
    model = await start()

    outcomes = await while_busy(model, tmp_path, *(ask(model, word) for word in ("a", "b", "c")))

    assert outcomes == [(200, "A"), (200, "B"), (200, "C")]
    assert calls(tmp_path) == [["hold"], ["a", "b", "c"]]


async def test_no_more_than_batch_size_are_joined(start, tmp_path):
    model = await start(batch_size=2)

    outcomes = await while_busy(model, tmp_path, *(ask(model, word) for word in ("a", "b", "c")))

    assert [text for _, text in outcomes] == ["A", "B", "C"]
    assert calls(tmp_path) == [["hold"], ["a", "b"], ["c"]]


async def test_requests_with_other_parameters_are_not_joined_and_keep_their_turn(start, tmp_path):
    model = await start()

    await while_busy(model, tmp_path, ask(model, "a"), ask(model, "b", parameters={"x": 1}), ask(model, "c"))

    assert calls(tmp_path) == [["hold"], ["a", "c"], ["b"]]


async def test_a_lone_request_does_not_wait_when_the_model_is_idle(start):
    model = await start(max_batch_delay=300)

    for word in ("one", "two"):
        async with asyncio.timeout(30):
            assert await ask(model, word) == (200, word.upper())


async def test_after_company_a_batch_is_held_open_for_the_delay_and_no_longer(start, tmp_path):
    model = await start(batch_size=3, max_batch_delay=300)
    await while_busy(model, tmp_path, *(ask(model, word) for word in ("a", "b", "c")))

    held = [asyncio.create_task(ask(model, word)) for word in ("d", "e")]
    await until(lambda: model.status().queued == 2)
    third = asyncio.create_task(ask(model, "f"))

    assert await asyncio.gather(*held, third) == [(200, "D"), (200, "E"), (200, "F")]
    assert calls(tmp_path)[-1] == ["d", "e", "f"]


async def test_a_held_batch_goes_when_its_time_is_up(start, tmp_path):
    model = await start(max_batch_delay=0.3)
    await while_busy(model, tmp_path, ask(model, "a"), ask(model, "b"))

    assert await ask(model, "late") == (200, "LATE")


async def test_a_malformed_batch_answer_is_an_error_for_those_requests_alone(start, tmp_path):
    model = await start()

    outcomes = await while_busy(model, tmp_path, ask(model, "forget"), ask(model, "b"))

    assert [code for code, _ in outcomes] == [424, 424]
    assert "Batch output size mismatch, expected: 2, actual: 1" in outcomes[0][1]
    assert await ask(model, "next") == (200, "NEXT")
    assert model.status().groups[0].restarts == 0


async def test_an_exception_is_everybodys(start, tmp_path):
    model = await start()

    outcomes = await while_busy(model, tmp_path, ask(model, "raise"), ask(model, "b"))

    assert [code for code, _ in outcomes] == [424, 424]
    assert all("one of you is wrong" in text for _, text in outcomes)


async def test_a_worker_that_dies_fails_all_of_its_batch(start, tmp_path):
    model = await start()

    outcomes = await while_busy(model, tmp_path, ask(model, "die"), ask(model, "b"))

    assert all(isinstance(each, ServiceUnavailableError) for each in outcomes)
    assert all("exited with code 3" in str(each) for each in outcomes)
    assert await ask(model, "next") == (200, "NEXT")


async def test_who_leaves_a_batch_does_not_disturb_the_others(start, tmp_path):
    model = await start()
    holder = asyncio.create_task(ask(model, "hold"))
    await until(lambda: (tmp_path / "calls").exists())
    leaver = asyncio.create_task(ask(model, "hold-2"))
    stayer = asyncio.create_task(ask(model, "b"))
    await until(lambda: model.status().queued == 2)
    (tmp_path / "hold").touch()
    await until(lambda: len(calls(tmp_path)) == 2)

    leaver.cancel()
    await asyncio.wait({leaver})
    (tmp_path / "hold-2").touch()

    assert await holder == (200, "HOLD")
    assert await stayer == (200, "B")
