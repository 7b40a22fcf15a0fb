"""What runs has a life: Creating, InService, Updating, Failed, Deleting. One piece of it is going on at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bloomery.sagemaker.emulator.api.store import Record, Store

logger = logging.getLogger(__name__)
LINES = 40  # of its containers' output that what has failed keeps


class Lives:
    """The one owner of what is going on with records of one kind.

    ``last_lines`` gives so many of the last lines that a record's containers wrote.
    """

    def __init__(self, store: Store, last_lines: Callable[[Record, int], list[str]]) -> None:
        self._store, self._last_lines = store, last_lines
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._phases: dict[str, str] = {}

    async def close(self) -> None:
        """Stop whatever is going on. What the store says stays as it is, for the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, record: Record, work: Coroutine[Any, Any, None]) -> None:
        """Have ``work`` done for a record; there is one such thing at a time, and a deletion cancels it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[record.arn] = task

        def done(_: asyncio.Task[None]) -> None:
            if self._tasks.get(record.arn) is task:
                del self._tasks[record.arn]

        task.add_done_callback(done)

    def cancel(self, record: Record) -> asyncio.Task[None] | None:
        """What was going on, which ends soon; None when nothing was."""
        task = self._tasks.get(record.arn)
        if task is not None:
            task.cancel()
        return task

    def phase(self, record: Record) -> Callable[[str], None]:
        """To be told what a record is at now."""
        started = time.monotonic()

        def phase(text: str) -> None:
            self._phases[record.arn] = text
            logger.info("%s %s: %s (%.1f s)", record.kind.words, record.name, text, time.monotonic() - started)

        return phase

    def phase_of(self, record: Record) -> str:
        """What it is at now ("downloading the model data")."""
        return self._phases.get(record.arn, "")

    def forget(self, record: Record) -> None:
        """It is gone."""
        self._phases.pop(record.arn, None)

    def note(self, record: Record, status: str | None = None, **document: Any) -> Record | None:
        """Within a phase of its life; None, and nothing, if another phase has begun meanwhile."""
        current = self._current(record)
        return current and self._store.change(current, status or current.status, **document)

    def settle(self, record: Record, status: str, reason: str | None, **document: Any) -> None:
        """The end of a phase of its life, unless another has begun meanwhile: a deletion is stronger than all."""
        current = self._current(record)
        if current is None:
            return
        self._phases.pop(record.arn, None)
        lines = None if reason is None else self._last_lines(record, LINES)
        self._store.change(current, status, FailureReason=reason, LastLines=lines, **document)
        if reason is not None:
            logger.warning("%s %s: %s: %s", record.kind.words, record.name, status, reason)

    def _current(self, record: Record) -> Record | None:
        current = self._store.by_arn(record.arn)
        return current if current is not None and current.status == record.status else None
