"""One request while a group holds it."""

from __future__ import annotations

import asyncio
import json
import time

from bloomery.errors import ServiceUnavailableError, StreamError
from bloomery.protocol.frames import ResponseHead
from bloomery.workers.answer import Answer, StreamBuffer

FAILURE_MESSAGE = "prediction failure"  # the worker's own word for a handler that failed


class Job:
    """Between the group, which serves it, and the caller, who waits for the answer and may leave at any time."""

    def __init__(self, request_id: str, frame: bytes, buffer: StreamBuffer) -> None:
        self.request_id = request_id
        self.frame = frame
        self.buffer = buffer
        self.started_at = time.monotonic()
        self.unwanted_at: float | None = None  # since when nobody waits for the answer any more
        self.cancel_delivered = False  # every rank knows that it is unwanted
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def answer(self) -> Answer:
        """Wait for the status line; of a stream, the body comes later."""
        return await asyncio.shield(self._answer)

    @property
    def answered(self) -> bool:
        """Whether the status line is out."""
        return self._answer.done()

    def reply(self, head: ResponseHead) -> None:
        """Hand over rank 0's answer."""
        if self._answer.done():
            return
        stream = self.buffer if head.content is None else None
        self._answer.set_result(Answer(head.code, head.message, head.properties, head.content or [], stream))

    @property
    def streaming(self) -> bool:
        """Whether the status line is out and pieces are still to come."""
        return self._answer.done() and not self.buffer.closed

    @property
    def delivered(self) -> bool:
        """Whether the caller has, or can still read, all there will ever be."""
        return self._answer.done() and (self.buffer.closed or self._answer.result().stream is None)

    def fail(self, message: str) -> None:
        """The server cannot answer: 503, or the end of the stream if the status line has left."""
        self.buffer.fail(StreamError(message, status=503))
        if not self._answer.done():
            self._answer.set_exception(ServiceUnavailableError(message))
            self._answer.exception()  # the caller may be gone; then nobody else retrieves it

    def break_off(self, message: str) -> None:
        """A handler failed after the status line had left."""
        self.buffer.fail(StreamError(message))

    def abandon(self) -> None:
        """The caller is gone."""
        self.give_up()
        self.buffer.discard()

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        if self.unwanted_at is None:
            self.unwanted_at = time.monotonic()


def handler_failure(rank: int, text: str, code: int = 424) -> ResponseHead:
    """What DJLServing answers to a handler's exception, for a rank whose error rank 0 does not know of."""
    body = {"code": code, "message": FAILURE_MESSAGE, "error": f"rank {rank}: {text}"}
    encoded = json.dumps(body, indent=2, separators=(",", ":")).encode()
    return ResponseHead(code, FAILURE_MESSAGE, {"content-type": "application/json"}, [("data", encoded)])


def error_text(head: ResponseHead) -> str:
    """The essence of a failed answer: the handler's own words."""
    for _, data in head.content or []:
        text = data.decode("utf-8", "replace").strip()
        try:
            fields = json.loads(text)
        except ValueError:
            return text or head.message
        if isinstance(fields, dict) and fields.get("error"):
            return str(fields["error"])
        return text
    return head.message
