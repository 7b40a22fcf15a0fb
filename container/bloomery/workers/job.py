"""What a group works on at a time: one request, or several that were joined into one call of the handler."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bloomery.errors import ServiceUnavailableError, StreamError
from bloomery.protocol.frames import ResponseHead
from bloomery.workers import batch
from bloomery.workers.answer import Answer, StreamBuffer
from bloomery.workers.call import Call


class Job:
    """Between the ranks, which work on it, and the callers, who wait for answers and may leave at any time.

    ``on_unwanted`` is called when the last caller has left too early, ``on_over`` when the ranks are rid of the job.
    """

    def __init__(self, request_id: str, calls: Sequence[Call], make_buffer: Callable[[], StreamBuffer]) -> None:
        self.request_id = request_id
        self.calls = calls
        self.joined = len(calls) > 1  # several requests share it
        self._make_buffer = make_buffer
        self._buffer: StreamBuffer | None = None
        self.on_unwanted: Callable[[Job], None] = lambda _job: None
        self.on_over: Callable[[Job], None] = lambda _job: None
        self.started_at = self.touched_at = time.monotonic()  # touched: when a rank last sent something
        self.unwanted_at: float | None = None  # since when nobody waits for the answer any more
        self.cancel_delivered = False  # every rank knows that it is unwanted
        self.answered = False  # the status line is out, or the reason why there is none
        self.served = False  # the ranks have answered it
        self._streams = False
        self._over = False
        for call in calls:
            call.on_leave = self._on_leave

    @property
    def buffer(self) -> StreamBuffer:
        """Of its stream, from the first time that somebody asks for it: most answers are none."""
        if self._buffer is None:
            self._buffer = self._make_buffer()
        return self._buffer

    @property
    def broken(self) -> bool:
        """Whether its stream broke off."""
        return self._buffer is not None and self._buffer.failed

    @property
    def streaming(self) -> bool:
        """Whether the status line is out and pieces are still to come."""
        return self._streams and not self.buffer.closed

    def reply(self, head: ResponseHead) -> None:
        """Hand over rank 0's answer."""
        if self.answered:
            return
        self.answered = self.served = True
        if self.joined:
            for call, answer in zip(self.calls, batch.answers(head, len(self.calls)), strict=True):
                call.reply(answer)
            self.buffer.end()
            return
        self._streams = head.content is None
        stream = self.buffer if self._streams else None
        self.calls[0].reply(Answer(head.code, head.message, head.properties, head.content or [], stream))

    def fail(self, message: str, kind: type[ServiceUnavailableError] = ServiceUnavailableError) -> None:
        """The server cannot answer: ``kind``, or the end of the stream if the status line has left."""
        self.buffer.fail(StreamError(message, status=503))
        for call in self.calls:
            call.refuse(kind(message))
        self.answered = True

    def break_off(self, message: str) -> None:
        """A handler failed after the status line had left."""
        self.buffer.fail(StreamError(message))

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        if self.unwanted_at is None:
            self.unwanted_at = time.monotonic()

    def over(self) -> None:
        """The ranks are rid of it, and every caller has been told how it went."""
        if not self._over:
            self._over = True
            self.on_over(self)
            for call in self.calls:  # or each would keep the other, and a body of megabytes, until the collector comes
                call.on_leave = _nobody_cares

    def _on_leave(self, _call: Call) -> None:
        delivered = self.answered and (not self._streams or self.buffer.closed)
        if self._over or delivered or not all(call.left for call in self.calls):
            return
        self.give_up()
        self.buffer.discard()
        self.on_unwanted(self)


def _nobody_cares(_call: Call) -> None:
    """The job is over."""
