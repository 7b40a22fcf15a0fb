"""A client's connection: aiohttp's own, save for what happens when the bytes on it are no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from bloomery.errors import BadRequestError, RequestError
from bloomery.http_api import response
from bloomery.http_api.finish import Finish, HttpRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """Refusals are documents, as everywhere, and a request whose body turns out to be none is not waited for."""

    __slots__ = ("_body",)

    def __init__(self, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._body: StreamReader | None = None  # of the latest request

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        super().data_received(data)
        if not self._messages:
            return
        message, body = self._messages[-1]
        error = None if isinstance(message, RawRequestMessage) else message.exc
        if error is None:
            self._body = body
        elif self._body is not None and not self._body.is_eof():
            # aiohttp 3.14 queues its refusal behind the request that still waits for the rest of its body, which
            # will never come: neither is ever answered.
            failure = web.RequestPayloadError(str(error))
            self._body.set_exception(failure)
            # Again, behind a reader that was woken for data a moment ago: StreamReader.readuntil (multipart bodies)
            # waits for more of it without a look at the exception.
            asyncio.get_running_loop().call_soon(self._body.set_exception, failure)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what aiohttp could not make a request of."""
        super().handle_error(request, status, exc, message)  # logs; raises when an answer has begun to leave
        cause = message or (str(exc) if exc else "") or "no cause is known"
        if status == 400:
            error: RequestError = BadRequestError(f"this is not an HTTP request ({type(exc).__name__}): {cause}")
        else:
            error = RequestError(f"the server failed to answer: {type(exc).__name__}")
        answer = response.of_error(error)
        answer.force_close()
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's, with these connections; ``direct`` answers requests of some paths past the application's router."""

    def __init__(self, app: web.Application, finish: Finish, direct: dict[str, Handler], **settings: Any) -> None:
        super().__init__(app, **settings)
        self._finish, self._direct = finish, direct

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()

        def handle(http: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            handler = self._direct.get(http.rel_url.raw_path)
            # Whether a body shall come at all is asked by the router's own handlers of Expect.
            if handler is None or hdrs.EXPECT in http.headers:
                return made.request_handler(http)
            return handler(cast(web.Request, http))

        factory: Any = made.request_factory  # takes the class as well
        kind = type("FinishedRequest", (HttpRequest,), {"finish": self._finish})
        return _Server(
            handle,
            request_factory=partial(factory, _cls=kind),
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )
