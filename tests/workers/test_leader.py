"""Asynchronous handlers: many requests in flight on rank 0."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.support.worker_models import FAST, until

from bloomery.errors import ServiceUnavailableError, StreamError
from bloomery.protocol.frames import Request
from bloomery.serving.model import Model
from bloomery.settings.model import ModelSettings

HANDLER = """
import asyncio
from pathlib import Path
from djl_python import Output

async def handle(inputs):
    if inputs.is_empty():
        return None
    word, _, what = inputs.get_as_string().partition(":")
    return await {"echo": echo, "gate": gate, "raise": fail}[word](what)

async def echo(what):
    return Output().add(what)

async def gate(what):
    while not Path(what).exists():
        await asyncio.sleep(0.01)
    return Output().add(what)

async def fail(what):
    raise ValueError(what)

def stream(inputs):
    return None if inputs.is_empty() else pieces(*inputs.get_as_string().split(":"))

async def pieces(count, breaks_at="-1"):
    for number in range(int(count)):
        if number == int(breaks_at):
            raise ValueError("broke off")
        last = number == int(count) - 1
        yield Output().add(Output.binary_encode({"data": f"t-{number};", "last": last}))
        await asyncio.sleep(0.01)
"""


@pytest.fixture
async def start(tmp_path: Path):
    models = []

    async def start(handler: str = "handle", **changes) -> Model:
        (tmp_path / "model.py").write_text(HANDLER)
        models.append(Model(ModelSettings("m", tmp_path, handler=handler, async_mode=True, **changes), limits=FAST))
        await models[-1].start()
        await models[-1].loaded()
        return models[-1]

    yield start
    for model in models:
        await model.stop(grace=0)


async def answer(model: Model, text: str) -> tuple[int, bytes]:
    async with model.submit(Request({}, [("data", text.encode())])) as reply:
        return reply.code, reply.content[0][1]


async def test_answers_come_in_any_order(start, tmp_path):
    model = await start()

    async with asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(answer(model, f"gate:{number}")) for number in range(5)]
        await until(lambda: model.status().groups[0].busy == 5)
        assert await answer(model, "echo:now") == (200, b"now")
        for number in reversed(range(5)):
            (tmp_path / str(number)).touch()

    assert [task.result() for task in held] == [(200, str(number).encode()) for number in range(5)]


async def test_a_failure_is_that_requests_own(start):
    model = await start()

    code, content = await answer(model, "raise:wrong number")

    assert code == 424
    assert b"wrong number" in content
    assert await answer(model, "echo:fine") == (200, b"fine")


async def test_a_request_that_leaves_is_cancelled_and_the_others_go_on(start, tmp_path):
    model = await start()
    leaver = asyncio.create_task(answer(model, "gate:never"))
    stayer = asyncio.create_task(answer(model, "gate:later"))
    await until(lambda: model.status().groups[0].busy == 2)

    leaver.cancel()
    await until(lambda: model.status().groups[0].busy == 1)

    (tmp_path / "later").touch()
    assert await stayer == (200, b"later")


async def test_the_death_of_the_leader_fails_all_requests_in_flight(start):
    model = await start()
    held = [asyncio.create_task(answer(model, f"gate:{number}")) for number in range(3)]
    await until(lambda: model.status().groups[0].busy == 3)

    os.kill(model.status().groups[0].pids[0], signal.SIGKILL)

    for failure in await asyncio.gather(*held, return_exceptions=True):
        assert isinstance(failure, ServiceUnavailableError)
        assert "was killed by signal 9 (SIGKILL)" in str(failure)
    assert await answer(model, "echo:again") == (200, b"again")


async def read(model: Model, text: str) -> bytes:
    async with model.submit(Request({}, [("data", text.encode())])) as reply:
        return b"".join([piece async for piece in reply.stream])


async def test_streams_run_side_by_side(start):
    model = await start("stream")

    read_all = await asyncio.gather(*(read(model, str(count)) for count in range(2, 7)))

    assert read_all == [b"".join(b"t-%d;" % number for number in range(count)) for count in range(2, 7)]


async def test_a_stream_of_one_piece_is_a_complete_answer(start):
    model = await start("stream")

    assert await answer(model, "1") == (200, b"t-0;")


async def test_a_stream_that_breaks_ends_with_the_handlers_words(start):
    model = await start("stream")

    with pytest.raises(StreamError, match="broke off"):
        await read(model, "3:2")
    assert await answer(model, "1") == (200, b"t-0;")
