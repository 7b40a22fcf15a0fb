"""``x-synchronous: false``: the answer is kept here, and the client collects it piece by piece.

The request is answered at once with a token in ``x-next-token``. A request with that token in ``x-starting-token`` (and
perhaps ``x-max-items``) gets the pieces there are, and the token for those that follow; the last ones come without a
token. Asking with a token means that the pieces before it have arrived: they are forgotten. So a poll whose answer was
lost may be repeated, and what is kept is bounded: in number, in bytes, and in time since somebody asked for it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from bloomery.errors import BadRequestError, CapacityError, RequestError
from bloomery.http_api import response, sanitise
from bloomery.http_api.request import CUSTOM_ATTRIBUTES
from bloomery.protocol.frames import Request, property_of
from bloomery.serving.model import Model
from bloomery.settings.server import ServerSettings
from bloomery.workers.answer import Answer
from bloomery.workers.call import Call

logger = logging.getLogger(__name__)
SYNCHRONOUS, STARTING_TOKEN, MAX_ITEMS = "x-synchronous", "x-starting-token", "x-max-items"
NEXT_TOKEN = "x-next-token"
_NOT_YET = "The model result is not yet available"
_UUID = 36  # characters; the number of the first piece follows, unless it is 0


@dataclass
class _Kept:
    """One answer. ``first`` is the number of the oldest piece that is still here."""

    identifier: str
    touched_at: float
    head: sanitise.Head | None = None
    pieces: deque[bytes] = field(default_factory=deque)
    first: int = 0
    size: int = 0  # bytes of the pieces
    error: RequestError | None = None
    over: bool = False  # no more pieces come
    collected: bool = False  # the client has been given the last one
    task: asyncio.Task[None] | None = None


def mentioned(http: web.Request) -> bool:
    """Whether a request may be about this at all, at a glance: most are not."""
    headers = http.headers
    return SYNCHRONOUS in headers or STARTING_TOKEN in headers or CUSTOM_ATTRIBUTES in headers


class Polling:
    """The answers that wait to be collected, of all models."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._kept: dict[str, _Kept] = {}  # the oldest first
        self._size = 0

    def poll(self, properties: Mapping[str, str]) -> web.Response | None:
        """The answer to a poll; None when the request is none."""
        token, most = _property(properties, STARTING_TOKEN), _property(properties, MAX_ITEMS)
        if not token:
            return None
        if most and not (most.isascii() and most.isdecimal() and len(most) < 10 and int(most) > 0):
            raise BadRequestError(f"Invalid {MAX_ITEMS}: {most}; it must be a whole number of at least 1")
        kept, start = self._find(token)
        kept.touched_at = time.monotonic()
        while kept.first < start:
            self._forget_piece(kept)
        return self._collect(kept, int(most) if most else None)

    def answer(self, model: Model, question: Request, change: Callable[[Answer], Answer]) -> web.Response | None:
        """The answer to a poll, or the token for one that will be kept; None when the request asks for neither."""
        if (polled := self.poll(question.properties)) is not None:
            return polled
        if _property(question.properties, SYNCHRONOUS).lower() != "false":
            return None
        self._refuse_when_full()
        return self._begin(model, model.submit(question), change)

    def _begin(self, model: Model, call: Call, change: Callable[[Answer], Answer]) -> web.Response:
        kept = _Kept(str(uuid.uuid4()), time.monotonic())
        self._kept[kept.identifier] = kept
        kept.task = asyncio.create_task(self._keep(kept, model, call, change))
        self._watch(kept)
        return _with_token(web.Response(), kept.identifier)

    def _refuse_when_full(self) -> None:
        self._make_room(lambda: len(self._kept) < self._settings.async_max_results)
        if len(self._kept) >= self._settings.async_max_results:
            raise CapacityError(
                f"{len(self._kept)} answers wait to be collected (async_max_results); collect some, or let them expire"
            )

    async def close(self, _app: web.Application | None = None) -> None:
        """Nobody will collect anything any more."""
        for kept in list(self._kept.values()):
            self._forget(kept)

    def _find(self, token: str) -> tuple[_Kept, int]:
        kept, number = self._kept.get(token[:_UUID]), token[_UUID:] or "0"
        if kept is not None and number.isascii() and number.isdecimal() and len(number) < 12:
            start = int(number)
            if kept.first <= start <= kept.first + len(kept.pieces):
                return kept, start
        raise BadRequestError(f"Invalid {STARTING_TOKEN}: {token[:80]}")

    def _collect(self, kept: _Kept, most: int | None) -> web.Response:
        pieces = list(itertools.islice(kept.pieces, most))
        following = f"{kept.identifier}{kept.first + len(pieces) or ''}"
        if not pieces and not kept.over:
            return _with_token(web.Response(status=202, reason=_NOT_YET), following)
        if not pieces and kept.error is not None:
            kept.collected = True
            raise kept.error.with_traceback(None)  # or each poll would make it longer
        assert kept.head is not None
        answer = response.of_head(kept.head, b"".join(pieces) if kept.head.has_body else None)
        if kept.over and kept.error is None and len(pieces) == len(kept.pieces):
            kept.collected = True
            return answer
        return _with_token(answer, following)

    async def _keep(self, kept: _Kept, model: Model, call: Call, change: Callable[[Answer], Answer]) -> None:
        try:
            with model.metrics.request() as counted:
                async with call as answer:
                    await self._take(kept, counted.watch(change(answer)))
        except RequestError as error:
            kept.error = error
        except Exception as error:
            logger.exception("an answer that was to be collected later is lost")
            kept.error = RequestError(f"the server failed: {type(error).__name__}")
        finally:
            kept.over = True

    async def _take(self, kept: _Kept, answer: Answer) -> None:
        head = response.head_of(answer)
        if answer.stream is None or head.explanation is not None or not head.has_body:
            self._add(kept, response.body_of(answer, head) or b"")
            kept.head = head
            return
        kept.head = head
        async for piece in answer.stream:
            self._add(kept, piece)

    def _add(self, kept: _Kept, piece: bytes) -> None:
        limit = self._settings.async_max_bytes
        self._make_room(lambda: self._size + len(piece) <= limit)
        if self._size + len(piece) > limit:
            raise CapacityError(f"the answers that wait to be collected have {self._size} bytes (async_max_bytes)")
        kept.pieces.append(piece)
        kept.size += len(piece)
        self._size += len(piece)

    def _make_room(self, enough: Callable[[], bool]) -> None:
        """Forget answers that have been collected, the oldest first: they are here for a repeated poll only."""
        for kept in [each for each in self._kept.values() if each.collected]:
            if enough():
                return
            self._forget(kept)

    def _forget_piece(self, kept: _Kept) -> None:
        size = len(kept.pieces.popleft())
        kept.first += 1
        kept.size -= size
        self._size -= size

    def _forget(self, kept: _Kept) -> None:
        if self._kept.pop(kept.identifier, None) is not None:
            self._size -= kept.size
        if kept.task is not None:
            kept.task.cancel()  # which cancels the request in the ranks

    def _watch(self, kept: _Kept) -> None:
        """Forget it once nobody has asked for it for long enough."""
        remaining = kept.touched_at + self._settings.async_expiry - time.monotonic()
        if remaining <= 0:
            self._forget(kept)
        elif kept.identifier in self._kept:
            asyncio.get_running_loop().call_later(remaining, self._watch, kept)


def _property(properties: Mapping[str, str], name: str) -> str:
    return (property_of(properties, name) or "").strip()


def _with_token(answer: web.Response, token: str) -> web.Response:
    """SageMaker lets through no headers of a container's own, and so the token is in its custom attributes too."""
    answer.headers[NEXT_TOKEN] = token
    answer.headers["X-Amzn-SageMaker-Custom-Attributes"] = f"{NEXT_TOKEN}={token}"
    return answer
