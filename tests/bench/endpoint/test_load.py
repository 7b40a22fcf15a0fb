"""Loads against a client that answers when the test says so."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from bloomery.bench.endpoint import arrivals
from bloomery.bench.endpoint.arrivals import Arrival
from bloomery.bench.endpoint.call import Reply
from bloomery.bench.endpoint.clients import now
from bloomery.bench.endpoint.load import Level, closed, opened
from bloomery.bench.endpoint.workload import Workload


class Held:
    """Answers nothing until so many requests are there."""

    def __init__(self, *, releasing_at: int = 1) -> None:
        self.bodies: list[bytes] = []
        self.under_way = self.most = 0
        self._release, self._releasing_at = asyncio.Event(), releasing_at

    async def ask(self, body: bytes, *, stream: bool) -> Reply:
        self.bodies.append(body)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if len(self.bodies) == self._releasing_at:
            self._release.set()
        await self._release.wait()
        await asyncio.sleep(0)
        self.under_way -= 1
        return Reply(((now(), b'{"outputs": ["a"]}\n'),), "application/jsonlines")

    async def close(self) -> None:
        pass


async def test_a_closed_loop_keeps_so_many_under_way_and_asks_each_number_once() -> None:
    client = Held()
    seen: list[object] = []
    calls = await closed(client, Workload(), Level("concurrency", 3, 10), None, seen.append)
    assert (client.most, len(calls), len(seen)) == (3, 10, 10)
    assert len(set(client.bodies)) == 10
    assert all(call.due == call.sent or call.sent - call.due < 0.1 for call in calls)


async def test_a_closed_loop_ends_after_its_time() -> None:
    calls = await closed(Held(), Workload(), Level("concurrency", 2, None, 0.05), None, lambda _: None)
    assert calls


async def test_an_open_loop_sends_everything_though_nothing_is_answered() -> None:
    client = Held(releasing_at=4)
    schedule = [Arrival(0.0), Arrival(0.001), Arrival(0.002), Arrival(0.002)]
    calls = await opened(client, Workload(), Level("rate", 1, None), schedule, None, lambda _: None)
    assert client.most == 4
    assert len(calls) == 4


async def test_an_open_loop_times_each_request_from_its_place_in_the_schedule() -> None:
    schedule = list(itertools.islice(arrivals.gamma(500, 1.0, seed=1), 20))
    calls = await opened(Held(), Workload(), Level("rate", 500, None), schedule, None, lambda _: None)
    due = sorted(call.due for call in calls)
    assert [at - due[0] for at in due] == pytest.approx([each.at - schedule[0].at for each in schedule])
    assert all(call.sent >= call.due for call in calls)


@pytest.mark.parametrize(("level", "number"), [(Level("rate", 9, 2), 2), (Level("rate", 9, None, 0.0015), 2)])
async def test_an_open_loop_ends_by_number_or_by_time(level: Level, number: int) -> None:
    schedule = [Arrival(0.0), Arrival(0.001), Arrival(0.002)]
    assert len(await opened(Held(), Workload(), level, schedule, None, lambda _: None)) == number


async def test_a_trace_says_what_is_asked() -> None:
    client = Held()
    schedule = [Arrival(0.0, "To be", None, 3), Arrival(0.0, None, 5)]
    await opened(client, Workload(max_new_tokens=9), Level("trace", 1, None), schedule, None, lambda _: None)
    first, second = sorted((json.loads(body) for body in client.bodies), key=lambda body: len(body["inputs"]))
    assert first["inputs"] == "To be"
    assert first["parameters"]["max_new_tokens"] == 3
    assert len(second["inputs"].split()) == 5
    assert second["parameters"]["max_new_tokens"] == 9
