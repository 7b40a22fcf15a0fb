"""What is looked at once more before a deadline has consequences."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.worker_models import ask, settings

from bloomery.errors import WorkerError
from bloomery.protocol.frames import ResponseHead
from bloomery.workers.answer import StreamBuffer
from bloomery.workers.call import Call
from bloomery.workers.deadlines import Deadlines
from bloomery.workers.job import Job
from bloomery.workers.limits import Limits


class Ranks:
    """Stands in for the supervisor: no real rank answers in just the moment in which it is asked how far it is."""

    progress_at = 0.0

    def __init__(self, job: Job, answer: ResponseHead | None) -> None:
        self._job, self._answer = job, answer

    async def refresh(self) -> None:
        self._job.touched_at = time.monotonic()
        if self._answer is not None:
            self._job.reply(self._answer)


@pytest.mark.parametrize("answers", [True, False])
async def test_an_answer_that_comes_while_the_ranks_are_asked_is_in_time(tmp_path: Path, answers: bool) -> None:
    call = Call(ask("echo"), None, lambda _call: None)
    job = Job("1", [call], lambda: StreamBuffer(1024, 1, 1))
    job.started_at -= 5
    answer = ResponseHead(200, "OK", {}, [("data", b"yes")]) if answers else None
    patient = replace(settings(tmp_path), predict_timeout=2.0)
    deadlines = Deadlines(patient, Limits(), Ranks(job, answer))  # type: ignore[arg-type]

    if answers:
        await deadlines.check(job)
        async with call as received:
            assert received.content == [("data", b"yes")]
    else:
        with pytest.raises(WorkerError, match="no sign of progress within predict_timeout=2 s"):
            await deadlines.check(job)
