"""The server under load while its ranks are killed: every request gets its own answer or a precise refusal.

Slow, and so only in ``scripts/test --full``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import pytest
from tests.support.server import Server, model_directory, serving

REQUESTS, CLIENTS, KILL_EVERY = 10_000, 64, 5.0
HANDLER = """
import hashlib, time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    order = inputs.get_property("x-order") or inputs.get_property("batch_000.x-order")
    if order == "raise":
        raise ValueError("as ordered")
    if inputs.is_batch():
        output = Output()
        for number, item in enumerate(inputs.get_batches()):
            output.add(answer(item), batch_index=number)
        return output
    if order == "stream":
        digest = hashlib.sha256(inputs.get_as_bytes()).hexdigest()
        output = Output().add_property("content-type", "application/jsonlines")
        return output.add_stream_content((digest[at:at + 8] + "\\n" for at in range(0, 64, 8)), output_formatter=None)
    return Output().add(answer(inputs))

def answer(item):
    if item.get_property("x-order") == "slow":
        time.sleep(0.02)
    return hashlib.sha256(item.get_as_bytes()).hexdigest()
"""
PROPERTIES = """
engine=MPI
option.tensor_parallel_degree=2
minWorkers=2
batch_size=4
max_batch_delay=10
retry_threshold=1000000
crash_loop_limit=1000000
"""
ORDERS = ("plain", "plain", "plain", "slow", "stream", "stream", "raise", "large")


@dataclass
class Tally:
    """What the clients have seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def ask(session: aiohttp.ClientSession, url: str, order: str, body: bytes, tally: Tally) -> None:
    expected = hashlib.sha256(body).hexdigest()
    timeout = aiohttp.ClientTimeout(total=60)
    headers = {"x-order": order, "Content-Type": f"application/x-{order}"}  # only one kind shares a batch
    try:
        async with session.post(url, data=body, headers=headers, timeout=timeout) as answer:
            status, text = answer.status, (await answer.read()).decode()
    except aiohttp.ClientPayloadError:  # a stream that was cut so that its client notices
        tally.outcomes["cut" if order == "stream" else "broken"] += 1
        return
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.wrong.append(f"{order}: {error!r}")
        return
    if status == 200:
        if text.replace("\n", "") != expected:
            tally.wrong.append(f"{order}: a wrong answer: {text[:200]!r}")
    elif status == 424 and order == "raise":
        if json.loads(text)["error"] != "as ordered":
            tally.wrong.append(f"{order}: another failure: {text[:200]!r}")
    elif status != 503 or "was killed by signal 9" not in text:
        tally.wrong.append(f"{order}: HTTP {status}, which says nothing of the kill: {text[:300]!r}")
    tally.outcomes[str(status)] += 1


async def client(url: str, numbers: range, tally: Tally) -> None:
    chance = random.Random(numbers.start)
    async with aiohttp.ClientSession() as session:
        for _ in numbers:
            order = chance.choice(ORDERS)
            size = 200_000 if order == "large" else chance.randrange(1, 2000)
            body = chance.randbytes(size)
            if order == "stream":  # which the server reads, to know that it must not be joined with others
                body = json.dumps({"stream": True, "inputs": body.hex()}).encode()
            await ask(session, url, order, body, tally)


async def kill(server: Server, finished: asyncio.Event, kills: list[int]) -> None:
    chance = random.Random(0)
    while not finished.is_set():
        ranks = psutil.Process(server.process.pid).children()
        if ranks:
            victim = chance.choice(ranks).pid
            os.kill(victim, signal.SIGKILL)
            kills.append(victim)
        try:
            await asyncio.wait_for(finished.wait(), KILL_EVERY)
        except TimeoutError:
            pass


async def storm(server: Server, requests: int) -> tuple[Tally, list[int]]:
    tally, kills, finished = Tally(), [], asyncio.Event()
    url = f"{server.url}/invocations"
    share = requests // CLIENTS + 1
    killing = asyncio.create_task(kill(server, finished, kills))
    await asyncio.gather(*(client(url, range(each * share, (each + 1) * share), tally) for each in range(CLIENTS)))
    finished.set()
    await killing
    return tally, kills


@pytest.mark.full
@pytest.mark.timeout(900)
def test_no_request_is_lost_or_answered_wrongly_while_ranks_are_killed(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "storm", HANDLER, PROPERTIES)
    with serving(directory) as server:
        asyncio.run(storm(server, 1_000))  # what grows once, has grown
        process = psutil.Process(server.process.pid)
        memory, descriptors = process.memory_info().rss, process.num_fds()

        tally, kills = asyncio.run(storm(server, REQUESTS))

        assert tally.wrong == []
        assert sum(tally.outcomes.values()) >= REQUESTS
        assert tally.outcomes["broken"] == 0
        assert len(kills) >= 2
        assert tally.outcomes["200"] > REQUESTS / 2
        server.post({}, **{"x-order": "plain"})
        assert process.num_fds() <= descriptors + 20
        assert process.memory_info().rss <= memory * 1.2 + 10 * 2**20
        print(f"{dict(tally.outcomes)}, {len(kills)} kills")
        assert server.stop() == 0
        assert server.leftovers == []
