"""Handlers that speak DJLServing's rolling-batch protocol: one frame per step, all requests in it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.worker_models import FAST, until

from bloomery.errors import StreamError
from bloomery.protocol.frames import Request
from bloomery.serving.model import Model
from bloomery.settings.model import ModelSettings

# Each request is a word that is spelt letter by letter, one letter a step.
HANDLER = """
import json, os
from djl_python import Output

running = []

def handle(inputs):
    global running
    if inputs.is_empty():
        return None
    if inputs.get_property("reset_rollingbatch") == "true":
        running = []
    items = inputs.get_batches()
    for item in items[len(running):]:
        running.append(item.get_as_string())
        with open("joined", "a") as file:
            facts = [running[-1], len(items), item.get_property("X-Name"), item.contains_key("seed")]
            print(json.dumps(facts), file=file)
    if "CRASH" in running:
        raise ValueError("all is lost")
    if "SHORT" in running:
        return Output().add(Output.binary_encode({"data": "", "last": True}), batch_index=0)
    output = Output()
    for number, word in enumerate(running):
        if word == "BAD":
            piece = {"data": "", "last": True, "code": 424, "error": "no such word"}
        elif word == "BREAK":
            piece = {"data": "x", "last": False}
        elif word == "REAK":
            piece = {"data": "", "last": True, "code": 500, "error": "broke"}
        else:
            piece = {"data": word[0], "last": len(word) == 1, "step_token_num": 1}
        output.add(Output.binary_encode(piece), batch_index=number)
        output.add_property(f"batch_{number}_Content-Type", f"text/{word[0]}")
    running = [word[1:] for word in running if len(word) > 1 and word not in ("BAD", "REAK")]
    return output
"""


@pytest.fixture
async def start(tmp_path: Path):
    models = []

    async def start(**changes: Any) -> Model:
        (tmp_path / "model.py").write_text(HANDLER)
        settings = ModelSettings("m", tmp_path, rolling_batch=True, **changes)
        models.append(Model(settings, limits=FAST))
        await models[-1].start()
        await models[-1].loaded()
        return models[-1]

    yield start
    for model in models:
        await model.stop(grace=0)


async def spell(model: Model, word: str) -> tuple[int, str | None, str]:
    async with model.submit(Request({"X-Name": word}, [("data", word.encode())])) as answer:
        content_type = answer.properties.get("Content-Type")
        if answer.stream is None:
            return answer.code, content_type, answer.content[0][1].decode()
        return answer.code, content_type, b"".join([piece async for piece in answer.stream]).decode()


def joined(directory: Path) -> list[Any]:
    return [json.loads(line) for line in (directory / "joined").read_text().splitlines()]


async def test_requests_run_side_by_side_each_with_its_own_pieces_and_headers(start, tmp_path):
    model = await start()
    words = ["Denmark", "Elsinore", "x", "Ophelia"]

    answers = await asyncio.gather(*(spell(model, word) for word in words))

    assert answers == [(200, f"text/{word[0]}", word) for word in words]
    assert sorted(joined(tmp_path)) == sorted([word, size, word, True] for word, size, *_ in joined(tmp_path))
    assert max(size for _, size, *_ in joined(tmp_path)) > 1


async def test_every_rank_gets_every_step(start):
    model = await start(engine="MPI", tensor_parallel_degree=2)

    assert await spell(model, "hello") == (200, "text/h", "hello")


async def test_no_more_than_the_limit_run_at_once(start, tmp_path):
    model = await start(max_rolling_batch_size=2)

    await asyncio.gather(*(spell(model, "abcdef") for _ in range(5)))

    assert max(size for _, size, *_ in joined(tmp_path)) == 2


async def test_one_requests_failure_is_its_own(start):
    model = await start()

    good, bad = await asyncio.gather(spell(model, "good"), spell(model, "BAD"))

    assert good == (200, "text/g", "good")
    assert bad[0] == 424
    assert json.loads(bad[2])["error"] == "no such word"


async def test_a_failure_after_the_first_piece_ends_the_stream_with_its_words(start):
    model = await start()

    with pytest.raises(StreamError, match="broke"):
        await spell(model, "BREAK")
    assert await spell(model, "next") == (200, "text/n", "next")


async def test_after_a_failed_step_the_handler_starts_afresh(start):
    model = await start()

    outcomes = await asyncio.gather(spell(model, "CRASH"), spell(model, "CRASH"))

    assert [code for code, *_ in outcomes] == [424, 424]
    assert all("all is lost" in text for *_, text in outcomes)
    assert await spell(model, "next") == (200, "text/n", "next")
    assert model.status().groups[0].restarts == 0


async def test_a_step_that_is_no_list_of_pieces_is_refused_in_words(start):
    model = await start()
    held = asyncio.create_task(spell(model, "a" * 2000))
    await until(lambda: model.status().groups[0].busy == 1)

    code, _, text = await spell(model, "SHORT")

    assert code == 424
    assert "1 entries for 2 requests" in text
    with pytest.raises(StreamError, match="malformed"):
        await held
    assert await spell(model, "next") == (200, "text/n", "next")


async def test_who_leaves_does_not_disturb_the_others(start):
    model = await start()
    leaver = asyncio.create_task(spell(model, "a" * 500))
    stayer = asyncio.create_task(spell(model, "b" * 500))
    await until(lambda: model.status().groups[0].busy == 2)

    leaver.cancel()

    assert await stayer == (200, "text/b", "b" * 500)
    await until(lambda: model.status().groups[0].busy == 0)
