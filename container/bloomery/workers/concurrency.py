"""Several ranks at once, as one piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any


async def until_first_failure(
    work: Iterable[Coroutine[Any, Any, None]],
    tick: float | None = None,
    check: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run all of ``work`` at once; the first exception ends the rest. ``check`` is called every ``tick`` meanwhile."""
    tasks = [asyncio.ensure_future(each) for each in work]
    pending = set(tasks)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, timeout=tick, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:  # in order, so that of two ranks that fail together the first is named
                if task in done:
                    task.result()
            if pending and check is not None:
                await check()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
