"""Carry out a plan: try once, warm up, measure level after level, and put the report together."""

from __future__ import annotations

import asyncio
import itertools
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bloomery
from bloomery.bench.endpoint import arrivals, published
from bloomery.bench.endpoint.clients import Client, allow_connections, now
from bloomery.bench.endpoint.load import Level, ask, closed, opened
from bloomery.bench.endpoint.opening import Opened
from bloomery.bench.endpoint.outcome import Outcome
from bloomery.bench.endpoint.plan import Plan
from bloomery.bench.endpoint.surroundings import Watch
from bloomery.bench.endpoint.workload import Workload
from bloomery.errors import BenchmarkError
from bloomery.processes.machine import cores, processor

SCHEMA = "bloomery.bench/1"
_WARM = 1_000_000  # warm-up requests have numbers, and so prompts, of their own
Progress = Callable[[str, int, int | None], None]


def unheard(name: str, done: int, total: int | None) -> None:
    """Progress that nobody asked for."""


def run(plan: Plan, endpoint: Opened, progress: Progress = unheard) -> dict[str, Any]:
    """The report as JSON would have it. ``progress`` is told the level's name, the requests that are done, and of how
    many. Raises BenchmarkError when the endpoint does not answer.

        with opened("my-endpoint", Place(), timeout=600) as endpoint:
            report = run(Plan("my-endpoint", Workload(), (Level("concurrency", 4, 100),)), endpoint)
    """
    import uvloop

    allow_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_measure(plan, endpoint, progress))
    load = (plan.load_seconds, "--load-seconds") if plan.load_seconds else endpoint.load_time()
    return report(plan, outcomes, *load)


async def _measure(plan: Plan, endpoint: Opened, progress: Progress) -> list[Outcome]:
    client = endpoint.connect(stream=plan.workload.stream)
    outcomes, first = [], 0
    try:
        await _try(client, plan)
        for index, level in enumerate(plan.levels):
            await _warm_up(client, plan, level, index)
            outcomes.append(await _level(client, plan, level, endpoint.watch, progress, first))
            first += len(outcomes[-1].calls)
    finally:
        await client.close()
    return outcomes


async def _try(client: Client, plan: Plan) -> None:
    """One request first: what cannot work is said in words, and not as a table full of errors."""
    small = replace(plan.workload, max_new_tokens=min(2, plan.workload.max_new_tokens))
    call = await ask(client, small, _WARM - 1, None, now(), plan.counter)
    if call.failure:
        hint = ""
        if "ignore_eos" in call.reason:
            hint = "; leave it out with --parameter ignore_eos=null, or name it as the endpoint does"
        elif "details" in call.reason:
            hint = "; leave it out with --parameter details=null"
        raise BenchmarkError(f"{plan.name} did not answer the first request: {call.failure}: {call.reason}{hint}")


async def _warm_up(client: Client, plan: Plan, level: Level, index: int) -> None:
    together = int(level.value) if level.kind == "concurrency" else 1
    requests = together if plan.warmup is None else plan.warmup
    if requests:
        warm = Level("concurrency", min(together, requests), requests)
        await closed(client, plan.workload, warm, plan.counter, lambda _: None, first=_WARM * (index + 1))


async def _level(
    client: Client, plan: Plan, level: Level, watch: Callable[[], Watch], progress: Progress, first: int
) -> Outcome:
    total = len(level.arrivals) if level.kind == "trace" and level.requests is None else level.requests
    count = itertools.count(1)
    progress(level.name, 0, total)
    watched = watch()

    def done(_: object) -> None:
        progress(level.name, next(count), total)

    if level.kind == "concurrency":
        calls = await closed(client, plan.workload, level, plan.counter, done, first)
    else:
        seed = plan.workload.seed
        schedule = level.arrivals or arrivals.gamma(level.value, level.burstiness, seed)
        # Another level must not meet the same prompts in a cache.
        workload = replace(plan.workload, seed=seed + first + 1)
        calls = await opened(client, workload, level, schedule, plan.counter, done)
    return Outcome(level, sorted(calls, key=lambda call: call.due), watched.share())


def report(plan: Plan, outcomes: list[Outcome], load_seconds: float | None, load_source: str) -> dict[str, Any]:
    """``throughput`` is that of the level with the most output tokens per second (or requests, where tokens are not
    known): what the price per million tokens is reckoned with."""
    levels = [outcome.as_json(plan.objectives, plan.price_per_hour) for outcome in outcomes]
    for outcome, level in zip(outcomes, levels, strict=True):
        if plan.limit and outcome.level.kind == "concurrency":
            allowed = plan.limit.tokens_per_second(outcome.level.value * plan.workload.batch)
            level["limit_output_tokens_per_s"] = round(allowed, 3)
    best = max(levels, key=lambda level: tuple(reversed(level["throughput"].values())))
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "name": plan.name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bloomery": bloomery.__version__,
        "client": {"machine": processor(), "cores": cores(), "python": platform.python_version()},
        "workload": _workload(plan.workload),
        "throughput": best["throughput"],
        "best_level": best["load"]["name"],
        "load_seconds": load_seconds,
        "load_seconds_from": load_source,
        "levels": levels,
    }
    if plan.price_per_hour is not None:
        found["cost"] = best["cost"]
    if plan.table:
        found["table"] = published.row(plan.name, plan.workload, outcomes[0].succeeded, load_seconds, load_source)
    return found


def _workload(workload: Workload) -> dict[str, Any]:
    return {
        "api": workload.dialect,
        "prompts": len(workload.prompts) or f"random, {workload.words} words",
        "batch": workload.batch,
        "max_new_tokens": workload.max_new_tokens,
        "stream": workload.stream,
        "parameters": dict(workload.parameters),
        "seed": workload.seed,
    }
