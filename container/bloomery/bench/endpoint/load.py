"""One level of load: a closed loop that keeps so many requests under way, or an open loop that follows a schedule.

In an open loop every request is timed from its place in the schedule. If the endpoint, or this client, falls behind,
the wait counts; timing from the moment of sending would leave out just the worst waits ("coordinated omission").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from bloomery.bench.endpoint.answers import TokenCounter, tally
from bloomery.bench.endpoint.arrivals import Arrival
from bloomery.bench.endpoint.call import Call, Reply
from bloomery.bench.endpoint.clients import Client, now
from bloomery.bench.endpoint.workload import Workload

Kind = Literal["concurrency", "rate", "trace"]
Done = Callable[[Call], None]


@dataclass(frozen=True)
class Level:
    """One setting of the load. ``value``: requests under way, or requests per second. It ends after ``requests``, or
    when ``seconds`` have passed and what is under way is answered, whichever comes first."""

    kind: Kind
    value: float
    requests: int | None
    seconds: float | None = None
    burstiness: float = 1.0
    arrivals: tuple[Arrival, ...] = field(default=(), repr=False)  # of a trace

    @property
    def name(self) -> str:
        """For tables and legends."""
        if self.kind == "trace":
            return "trace"
        return f"{self.kind} {self.value:g}"

    def as_json(self) -> dict[str, Any]:
        """What it was."""
        found: dict[str, Any] = {"kind": self.kind, "value": self.value, "name": self.name}
        return found | {"burstiness": self.burstiness} if self.kind == "rate" else found


async def closed(
    client: Client, workload: Workload, level: Level, counter: TokenCounter | None, done: Done, first: int = 0
) -> list[Call]:
    """``level.value`` connections, each asks again once it has its answer."""
    numbers = iter(range(first, first + level.requests) if level.requests else _count_from(first))
    end = now() + level.seconds if level.seconds else float("inf")
    calls: list[Call] = []

    async def connection() -> None:
        for number in numbers:
            if now() >= end:
                return
            call = await ask(client, workload, number, None, now(), counter)
            calls.append(call)
            done(call)

    async with asyncio.TaskGroup() as group:
        for _ in range(int(level.value)):
            group.create_task(connection())
    return calls


async def opened(
    client: Client,
    workload: Workload,
    level: Level,
    schedule: Iterable[Arrival],
    counter: TokenCounter | None,
    done: Done,
) -> list[Call]:
    """Every arrival is sent when it is due, however many are unanswered."""
    calls: list[Call] = []
    begin = now()

    async def one(number: int, arrival: Arrival) -> None:
        call = await ask(client, workload, number, arrival, begin + arrival.at, counter)
        calls.append(call)
        done(call)

    async with asyncio.TaskGroup() as group:
        for number, arrival in enumerate(schedule):
            if level.requests is not None and number >= level.requests:
                break
            if level.seconds is not None and arrival.at > level.seconds:
                break
            await asyncio.sleep(begin + arrival.at - now())
            group.create_task(one(number, arrival))
    return calls


async def ask(
    client: Client, workload: Workload, number: int, arrival: Arrival | None, due: float, counter: TokenCounter | None
) -> Call:
    """One request, from its body to the count of its tokens."""
    body = workload.body(number, arrival)
    sent = now()
    reply = await client.ask(body, stream=workload.stream)
    return measured(reply, due, sent, now(), counter)


def measured(reply: Reply, due: float, sent: float, done: float, counter: TokenCounter | None) -> Call:
    """What the reply tells of this request."""
    if reply.failure:
        return Call(due, sent, done, failure=reply.failure, reason=reply.reason)
    found = tally(reply, counter)
    if found.error:
        return Call(due, sent, done, failure="error in the answer", reason=found.error)
    if not found.records:
        return Call(due, sent, done, failure="empty answer", reason=reply.body[:200].decode(errors="replace"))
    return Call(
        due,
        sent,
        reply.pieces[-1][0],
        tuple(found.times),
        found.streamed,
        found.steps,
        found.tokens,
        found.counted_by,
        found.prompt_tokens,
    )


def _count_from(number: int) -> Iterator[int]:
    while True:
        yield number
        number += 1
