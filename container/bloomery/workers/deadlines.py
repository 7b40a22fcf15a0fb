"""How long a request may hold its group. The clock starts when the ranks receive it, not when it was queued."""

from __future__ import annotations

import time

from bloomery.errors import DeadlineError, UnansweredError
from bloomery.settings.model import ModelSettings
from bloomery.workers.job import Job
from bloomery.workers.limits import Limits
from bloomery.workers.supervision import RestartRequestedError, Supervisor


class Deadlines:
    """The client's patience is one thing: after predict_timeout it gets its error. Whether the ranks hang is another:
    as long as they count steps they are left to finish, or to notice the cancellation.
    """

    def __init__(self, settings: ModelSettings, limits: Limits, supervisor: Supervisor) -> None:
        self._settings, self._limits, self._supervisor = settings, limits, supervisor
        self.tick = min(0.25, settings.predict_timeout / 4, settings.stream_idle_timeout / 4)

    async def check(self, job: Job) -> None:
        """Call it every ``tick`` while the job is with the ranks."""
        await self._check_answer(job)
        await self._check_standstill(job)
        if job.broken:
            job.give_up()
        if job.unwanted_at is not None:
            await self._settle(job, job.unwanted_at)

    async def _check_answer(self, job: Job) -> None:
        timeout = self._settings.predict_timeout
        if not _is_late(job, timeout):
            return
        await self._supervisor.refresh()
        if not _is_late(job, timeout):  # answered meanwhile
            return
        if self._supervisor.progress_at <= job.started_at:
            raise UnansweredError(f"no answer and no sign of progress within predict_timeout={timeout:g} s")
        job.fail(
            f"model {self._settings.name!r} is still working on the answer after predict_timeout={timeout:g} s; "
            "ask for less, stream, or raise option.predict_timeout",
            DeadlineError,
        )
        job.give_up()

    async def _check_standstill(self, job: Job) -> None:
        name = "stream_idle_timeout" if job.streaming else "predict_timeout"
        timeout = getattr(self._settings, name)
        if time.monotonic() - max(job.touched_at, self._supervisor.progress_at) < timeout:
            return
        await self._supervisor.refresh()
        if time.monotonic() - max(job.touched_at, self._supervisor.progress_at) >= timeout:
            raise UnansweredError(f"no sign of progress for {name}={timeout:g} s")

    async def _settle(self, job: Job, unwanted_at: float) -> None:
        # Repeated, because a rank that has not read the frame yet does not know the request and forgets the word.
        if not job.cancel_delivered:
            job.cancel_delivered = await self._supervisor.cancel(job.request_id)
        waited = time.monotonic() - unwanted_at
        if self._settings.on_disconnect == "restart" and waited > self._limits.cancel_grace:
            raise RestartRequestedError(
                f"the client left {waited:.0f} s ago, the handler did not stop, and on_disconnect=restart"
            )


def _is_late(job: Job, timeout: float) -> bool:
    return not job.answered and time.monotonic() - job.started_at >= timeout
