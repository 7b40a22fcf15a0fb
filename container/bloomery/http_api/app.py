"""The application: its routes, and what happens around each of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from bloomery.errors import MethodNotAllowedError, NotFoundError, PayloadTooLargeError, RequestError
from bloomery.http_api import (
    access,
    adapters,
    cors,
    health,
    kserve,
    management,
    metrics,
    openai,
    openapi,
    polling,
    response,
    workflows,
)
from bloomery.http_api.finish import Finish
from bloomery.http_api.management import Management
from bloomery.http_api.models import Models
from bloomery.http_api.permission import Door, Permission
from bloomery.http_api.request import (
    REQUEST_ID,
    accept_by_default,
    identify,
    model_name,
    read,
    refuse_too_large,
    unreadable,
)
from bloomery.http_api.statuses import Statuses
from bloomery.protocol.frames import Request
from bloomery.serving.model import Model
from bloomery.serving.registrar import Registrar
from bloomery.serving.registry import Registry
from bloomery.settings.server import ServerSettings
from bloomery.workers.answer import Answer

logger = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DIRECT = web.AppKey[dict[str, Handler]]("direct", dict)  # handlers by path that need no router
FINISH = web.AppKey("finish", Finish)
_NO_SUCH_PATH = "Requested resource is not found, please refer to API document."
_SHOWN = 100  # characters of a path in a message


def build(registry: Registry, settings: ServerSettings, registrar: Registrar, door: Door) -> web.Application:
    """The application that serves the models of ``registry`` at one of the server's addresses."""
    statuses = Statuses(settings)
    middlewares = [_around(statuses, settings.request_id_header_key)]
    if settings.cors_allowed_origin is not None:
        middlewares.append(cors.preflight)
    app = web.Application(middlewares=middlewares, client_max_size=settings.max_request_size)
    app[FINISH], app[DIRECT] = Finish(settings), {}
    permission = Permission(settings, door)
    expect = _expectation(settings.max_request_size, statuses)

    def add(method: str, path: str, handler: Handler) -> None:
        app.router.add_route(method, path, handler, expect_handler=expect)

    add("*", "/ping", health.ping(registry, settings.allow_multi_status))
    if door is not Door.MANAGEMENT:
        inference = _Inference(registry, settings)
        app.on_shutdown.append(inference.polling.close)
        # As in DJLServing, any method and any path below /invocations reach the model.
        for path in ("/invocations", "/invocations/{rest:.*}"):
            add("*", path, inference.invoke)
        app[DIRECT]["/invocations"] = _inside(middlewares, inference.invoke)
        for path in ("/predictions/{model}", "/predictions/{model}/{version}", "/models/{model}/invoke"):
            add("*", path, inference.predict)
        completions = openai.Door(registry, inference.read, inference.submit)
        add("POST", "/v1/chat/completions", completions.chat)
        add("POST", "/v1/completions", completions.completions)
        add("GET", "/v1/models", completions.models)
        add("GET", "/v1/models/{model:.+}", completions.model)
    for path in ("/metrics", "/server/metrics"):
        add("GET", path, metrics.exposition(registry))
    for path in ("/openapi.json", "/api-description"):
        add("GET", path, openapi.description())
    models, manager = Models(registry, registrar, permission), Management(registry, registrar, settings)
    adapters.add_routes(app, registry, registrar, permission, settings)
    management.add_routes(app, models, manager, permission)
    workflows.add_routes(app, registry, models, manager, permission)
    kserve.add_routes(app, registry)
    return app


class _Inference:
    def __init__(self, registry: Registry, settings: ServerSettings) -> None:
        self._registry, self._settings = registry, settings
        self.polling = polling.Polling(settings)

    async def invoke(self, http: web.Request) -> web.StreamResponse:
        """The model that the request names, or the only one."""
        question = await self.read(http)
        if self._settings.default_accept is not None:
            accept_by_default(question.properties, self._settings.default_accept)
        if polling.mentioned(http) and (kept := self.polling.poll(question.properties)) is not None:
            return kept
        name = model_name(http, question.content, question.properties)
        return await self.submit(http, self._registry.get(name), question)

    async def predict(self, http: web.Request) -> web.StreamResponse:
        """The model in the path."""
        name, version = http.match_info["model"], http.match_info.get("version")
        self._registry.get(name, version)  # unknown models are refused before the body is read
        question = await self.read(http)
        return await self.submit(http, self._registry.get(name, version), question)

    def read(self, http: web.Request) -> Awaitable[Request]:
        """The request as the worker protocol has it."""
        return read(http, http[REQUEST_ID], self._settings.max_request_size)

    async def submit(
        self, http: web.Request, model: Model, question: Request, change: Callable[[Answer], Answer] = lambda it: it
    ) -> web.StreamResponse:
        """Have ``model`` answer, ``change`` the answer, and send it."""
        model.adapters.check(http.query.get("adapter"))
        if polling.mentioned(http) and (kept := self.polling.answer(model, question, change)) is not None:
            return kept
        with model.metrics.request() as counted:
            # Leaving this block early (the client has gone, and aiohttp cancels us) cancels the request in the ranks.
            async with model.submit(question) as answer:
                answer = counted.watch(change(answer))
                return await response.send(http, answer, model.settings.stream_idle_timeout)


def _around(statuses: Statuses, header: str) -> Middleware:
    """Request id, errors as documents, one log line."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        identifier = request[REQUEST_ID] = identify(request, header)
        started = time.monotonic()
        status: int | str = "gone"
        size = 0
        try:
            try:
                answer = await handler(request)
            except Exception as error:
                answer = _refused(request, error, statuses)
            status, size = answer.status, response.size(answer)
            return answer
        except ConnectionError:
            raise asyncio.CancelledError from None
        finally:
            access.log(
                request.remote, request.method, request.path, status, size, time.monotonic() - started, identifier
            )

    return around


def _inside(middlewares: list[Middleware], handler: Handler) -> Handler:
    for middleware in reversed(middlewares):
        handler = partial(middleware, handler=handler)
    return handler


def _refused(http: web.Request, error: Exception, statuses: Statuses) -> web.Response:
    """What a client hears of ``error``; raises it again when the client has left while we wrote."""
    if isinstance(error, RequestError):
        return _refusal(http, error, statuses)
    if isinstance(error, web.HTTPNotFound):
        where = f"{http.method} {http.path[:_SHOWN]}"
        told = f"{_NO_SUCH_PATH} There is no {where} here; GET /openapi.json lists what there is."
        return _refusal(http, NotFoundError(told), statuses)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        refusal = _refusal(http, MethodNotAllowedError(f"{http.method} is not allowed here; use {allowed}"), statuses)
        refusal.headers[hdrs.ALLOW] = allowed
        return refusal
    if isinstance(error, web.RequestPayloadError):
        return _refusal(http, unreadable(error), statuses)
    if isinstance(error, web.HTTPException):
        wrapped = RequestError(error.text or error.reason)
        wrapped.status, wrapped.type_name = error.status, type(error).__name__
        return _refusal(http, wrapped, statuses)
    if isinstance(error, ConnectionError) and (http.transport is None or http.transport.is_closing()):
        raise error
    logger.error("a request failed inside the server", exc_info=error)
    return _refusal(http, RequestError(f"the server failed to answer: {type(error).__name__}: {error}"), statuses)


def _refusal(http: web.Request, error: RequestError, statuses: Statuses) -> web.Response:
    """The error document that clients of this path read: OpenAI's below /v1/, DJLServing's elsewhere."""
    statuses.apply(error)
    return openai.of_error(error) if http.path.startswith("/v1/") else response.of_error(error)


def _expectation(limit: int, statuses: Statuses) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    async def expect(http: web.Request) -> web.StreamResponse | None:
        """``Expect: 100-continue`` (curl sends it with large bodies): refuse before the client sends any of it."""
        try:
            refuse_too_large(http.content_length, limit)
        except PayloadTooLargeError as error:
            return _refusal(http, error, statuses)
        if http.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and http.transport is not None:
            http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    return expect
