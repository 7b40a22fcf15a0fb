"""Dispatch to a handler that speaks DJLServing's rolling-batch protocol: the server drives, one frame per decode step.

Every frame lists all requests that are being answered, in the order in which they joined. A new one comes with its
properties, its content and a seed, a running one with an empty ``data``. The answer has one entry for each, in the same
order: a piece (``workers.piece``) of its text. After a failure the handler is told to forget everything
(``reset_rollingbatch``).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from bloomery.protocol import private
from bloomery.protocol.frames import ContentPart, Request, ResponseHead, encode_request
from bloomery.settings.model import ModelSettings
from bloomery.workers import batch
from bloomery.workers.concurrency import Lost
from bloomery.workers.connection import Connection
from bloomery.workers.dispatch import frame
from bloomery.workers.failure import error_text, handler_failure
from bloomery.workers.job import Job
from bloomery.workers.limits import Limits
from bloomery.workers.piece import Piece
from bloomery.workers.supervision import Supervisor

RESET = "reset_rollingbatch"


class Rolling:
    """Serves up to ``option.max_rolling_batch_size`` requests at a time."""

    def __init__(
        self,
        connections: Sequence[Connection],
        settings: ModelSettings,
        _limits: Limits,
        _supervisor: Supervisor,
        _lost: Lost,
    ) -> None:
        self._connections, self._settings = connections, settings
        self.capacity = settings.max_rolling_batch_size
        self._alone: list[Job] = []  # for another function of the handler: between two steps
        self._new: list[Job] = []
        self._running: list[Job] = []
        self._arrived = asyncio.Event()
        self._reset = False
        self._random = random.Random()

    def begin(self, job: Job) -> None:
        """It joins the next step."""
        encode_request(job.calls[0].request)  # one that fits no frame must not spoil the others' step
        job.cancel_delivered = True  # the protocol has no word for it: the handler finishes, and nobody hears it
        (self._new if job.calls[0].function is None else self._alone).append(job)
        self._arrived.set()

    async def run(self) -> None:
        """Step after step while there is a request."""
        while True:
            if not (self._running or self._new or self._alone):
                self._arrived.clear()
                await self._arrived.wait()
            while self._alone:
                await self._serve_alone(self._alone.pop(0))
            if self._running or self._new:
                await self._step()

    def check(self, job: Job) -> None:
        """All ranks get each step, and ``run`` waits for all of them; standing still is the deadlines' business."""

    async def _serve_alone(self, job: Job) -> None:
        heads = await self._ask(frame(self._settings, job, self._random.getrandbits(31)))
        failed = next((rank for rank, head in enumerate(heads) if head.code >= 300), 0)
        text = f"rank {failed}: {error_text(heads[failed])}"
        job.reply(heads[0] if failed == 0 else handler_failure(text, heads[failed].code))
        job.buffer.end()
        job.over()

    async def _step(self) -> None:
        request = self._request()
        self._running += self._new
        self._new = []
        heads = await self._ask(encode_request(request))
        failed = next((rank for rank, head in enumerate(heads) if head.code >= 300), None)
        if failed is not None:
            own = heads[failed] if failed == 0 else handler_failure(f"rank {failed}: {error_text(heads[failed])}")
            self._fail_all(own)
            return
        contents = [data for _, data in heads[0].content or []]
        pieces = [Piece.decode(data) for data in contents]
        if len(pieces) != len(self._running) or None in pieces:
            what = f"{len(pieces)} entries for {len(self._running)} requests" if None not in pieces else "no such piece"
            self._fail_all(handler_failure(
                f"the handler's step of a rolling batch is malformed ({what}): each request wants one entry made by "
                "Output.binary_encode({'data': text, 'last': True or False, 'step_token_num': 1})"
            ))  # fmt: skip
            return
        for number, (job, piece) in enumerate(zip(list(self._running), pieces, strict=True)):
            if piece is not None:
                self._take(job, piece, replace(heads[0], properties=batch.item_properties(heads[0], number)))

    def _request(self) -> Request:
        properties = {"handler": self._settings.handler, batch.BATCH_SIZE: str(len(self._running) + len(self._new))}
        properties[private.SEED] = str(self._random.getrandbits(31))  # one for all ranks
        if self._reset:
            properties[RESET], self._reset = "true", False
        content: list[ContentPart] = [(f"{batch.prefix(number)}data", b"") for number in range(len(self._running))]
        for number, job in enumerate(self._new, len(self._running)):
            prefix, request = batch.prefix(number), job.calls[0].request
            properties |= {f"{prefix}{key}": value for key, value in request.properties.items()}
            content += [(f"{prefix}{key or ''}", data) for key, data in request.content]
            content.append((f"{prefix}seed", str(self._random.getrandbits(31)).encode()))
        return Request(properties, content)

    async def _ask(self, encoded: bytes) -> list[ResponseHead]:
        """One step on every rank."""
        for connection in self._connections:
            connection.open_for_answers = True
            connection.send(encoded)
        heads = [await connection.read_head() for connection in self._connections]
        for connection, head in zip(self._connections, heads, strict=True):
            while head.content is None and not (await connection.read_chunk()).last:
                pass  # a stream has no place here, and the malformed step is refused once it is over
            connection.end_answer()
        return heads

    def _take(self, job: Job, piece: Piece, head: ResponseHead) -> None:
        job.touched_at = time.monotonic()
        failed = bool(piece.error) or (piece.code or 200) >= 300
        if failed and not job.answered:
            job.reply(handler_failure(piece.error or piece.data.decode("utf-8", "replace"), piece.code or 424))
        elif failed:
            job.break_off(piece.error or f"the handler ended the request with code {piece.code}")
        elif piece.last and not job.answered:
            job.reply(replace(head, content=[("data", piece.data)]))
        else:
            job.reply(replace(head, content=None))
            job.buffer.put_now(piece.data)
        if piece.last or failed:
            self._end(job)

    def _fail_all(self, head: ResponseHead) -> None:
        self._reset = True
        for job in list(self._running):
            if job.answered:
                job.break_off(error_text(head))
            else:
                job.reply(head)
            self._end(job)

    def _end(self, job: Job) -> None:
        job.buffer.end()
        self._running.remove(job)
        job.over()
