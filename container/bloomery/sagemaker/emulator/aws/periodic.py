"""Something that is done again and again from its first use on, and once more at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class Periodic:
    """Awaits ``flush`` every ``interval`` seconds."""

    def __init__(self, flush: Callable[[], Awaitable[None]], interval: float) -> None:
        self._flush, self._interval = flush, interval
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """From now on; begun already, it goes on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Flush for the last time."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._flush()
