"""sagemaker-runtime: the invocations of endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.containers.fleet import LocalFleet
from bloomery.sagemaker.emulator.containers.instance import Instance
from bloomery.sagemaker.emulator.containers.running import Endpoint, Variant
from bloomery.sagemaker.emulator.deployment import Surroundings
from bloomery.sagemaker.emulator.invoking import eventstream, hop, parameters, sessions
from bloomery.sagemaker.emulator.invoking.asynchronous import Asynchronous
from bloomery.sagemaker.emulator.invoking.hop import Exchange, ModelError
from bloomery.sagemaker.emulator.invoking.invocations import Invocations
from bloomery.sagemaker.emulator.invoking.limits import Limits
from bloomery.sagemaker.emulator.invoking.sessions import Sessions

log = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_INVOKED = "x-Amzn-Invoked-Production-Variant"
_REQUEST_ID = "x-amzn-RequestId"


@dataclass
class _Call:
    """One request on its way to one instance."""

    endpoint: Endpoint
    variant: Variant
    instance: Instance
    headers: dict[str, str]  # for the container
    body: bytes
    exchange: Exchange


class Runtime:
    """The routes below /endpoints/."""

    def __init__(
        self,
        around: Surroundings,
        fleet: LocalFleet,
        asynchronous: Asynchronous,
        invocations: Invocations,
        limits: Limits,
    ) -> None:
        self._around, self._fleet, self._asynchronous = around, fleet, asynchronous
        self._invocations, self._limits = invocations, limits
        self._sessions = Sessions()

    def add_routes(self, app: web.Application) -> None:
        """To the emulator's application."""
        for path, handler in (
            ("invocations", self._invoke),
            ("invocations-response-stream", self._stream),
            ("async-invocations", self._invoke_async),
        ):
            app.router.add_post(f"/endpoints/{{name}}/{path}", _answering_errors(handler))

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        async with self._call("InvokeEndpoint", request) as call:
            answer = await hop.ask(
                self._fleet.session,
                call.endpoint.spec,
                call.instance,
                call.headers,
                call.body,
                self._limits.invocation,
                call.exchange,
            )
        headers = {"Content-Type": answer.content_type, **self._answered(call, answer.headers)}
        return web.Response(body=answer.body, headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        async with self._call("InvokeEndpointWithResponseStream", request) as call:
            began = time.perf_counter()
            try:
                upstream = await self._first_byte(call)
                async with upstream:
                    headers = {
                        "Content-Type": eventstream.CONTENT_TYPE,
                        f"{hop.PRIVATE}Content-Type": upstream.headers.get("Content-Type", "application/octet-stream"),
                        **self._answered(call, upstream.headers),
                    }
                    response = web.StreamResponse(headers=headers)
                    await response.prepare(request)
                    await self._relay(call, upstream, response, began)
                    await response.write_eof()
                    return response
            finally:
                call.exchange.model = time.perf_counter() - began

    async def _first_byte(self, call: _Call) -> aiohttp.ClientResponse:
        """The container's answer, once its head is here and says success. Raises ModelError."""
        spec, instance, exchange = call.endpoint.spec, call.instance, call.exchange
        try:
            async with asyncio.timeout(self._limits.invocation):
                url = f"{instance.url}/invocations"
                upstream = await self._fleet.session.post(url, data=call.body, headers=call.headers)
                exchange.status = upstream.status
                if not 200 <= upstream.status < 300:
                    async with upstream:
                        exchange.content = await upstream.read()
                    hop.refuse_errors(spec, instance, upstream.status, exchange.content)
                return upstream
        except TimeoutError:
            raise ModelError(spec, instance.stream, words.MODEL_FAILED, 0, words.TOO_SLOW.text) from None
        except (aiohttp.ClientError, OSError) as error:
            raise hop.connection_lost(spec, instance, exchange, error) from error

    async def _relay(
        self, call: _Call, upstream: aiohttp.ClientResponse, response: web.StreamResponse, began: float
    ) -> None:
        """Every piece as soon as it comes, one event each. What goes wrong from here on is the stream's last event."""
        exchange, limit = call.exchange, self._limits.stream
        try:
            async with asyncio.timeout(limit):
                while piece := await _next(upstream):
                    if exchange.first_byte is None:
                        exchange.first_byte = time.perf_counter() - began
                    if self._invocations.bodies.wanted:
                        exchange.content += piece
                    await response.write(eventstream.payload_parts(piece))
            return
        except TimeoutError:
            last = _broken(words.STREAM_TIME.format(seconds=limit), "ModelInvocationTimeExceeded")
        except _StreamBroken as error:
            last = _broken(words.STREAM_BROKEN.format(reason=error), "StreamBroken")
        except ConnectionError:  # the client has gone
            raise
        except Exception:
            log.exception("a stream of endpoint %s failed: a fault of the emulator", call.endpoint.spec.name)
            last = eventstream.exception("InternalStreamFailure", {"Message": words.STREAM_FAILED.text})
        exchange.status = 0
        await response.write(last)

    async def _invoke_async(self, request: web.Request) -> web.StreamResponse:
        given, endpoint = self._asked("InvokeEndpointAsync", request)
        body = await self._body(request, self._limits.inline_payload)
        accepted = self._asynchronous.accept(endpoint, given, body)
        headers = {f"{hop.PRIVATE}OutputLocation": accepted.output, _REQUEST_ID: str(uuid.uuid4())}
        if accepted.failure is not None:
            headers[f"{hop.PRIVATE}FailureLocation"] = accepted.failure
        return web.json_response({"InferenceId": accepted.inference_id}, status=202, headers=headers)

    @contextlib.asynccontextmanager
    async def _call(self, operation: str, request: web.Request) -> AsyncIterator[_Call]:
        """The request, and the instance that it goes to."""
        arrived = time.perf_counter()
        given, endpoint = self._asked(operation, request)
        spec = endpoint.spec
        if spec.async_output is not None:
            raise _refusal(words.ONLY_ASYNCHRONOUS.format(endpoint=spec.name, account=spec.account))
        body = await self._body(request, self._limits.payload)
        endpoint = self._component(endpoint, given.get("InferenceComponentName"))
        variant, instance = self._place(endpoint, given)
        headers = hop.to_container(given)
        with self._invocations.on(operation, endpoint, variant, instance, headers, body, arrived) as exchange:
            yield _Call(endpoint, variant, instance, headers, body, exchange)

    def _place(self, endpoint: Endpoint, given: Mapping[str, Any]) -> tuple[Variant, Instance]:
        """Where a request goes: to the instance that has its session, or by variant and routing."""
        said = {"endpoint": endpoint.spec.name, "account": endpoint.spec.account}
        session = given.get("SessionId", sessions.NEW)
        if session != sessions.NEW:
            place = self._sessions.find(endpoint.spec.key, session)
            if place is None:
                raise _refusal(words.NO_SESSION.format(session=session, **said))
            return place
        target = given.get("TargetVariant")
        if target is not None and not endpoint.has(target):
            raise _refusal(words.NO_VARIANT.format(variant=target, **said))
        variant = endpoint.choose(target)
        instance = variant.choose() if variant else None
        if variant is None or instance is None:
            raise self._unavailable(endpoint)
        return variant, instance

    def _answered(self, call: _Call, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of an answer, whatever the operation."""
        self._sessions.note(call.endpoint.spec.key, call.variant, call.instance, headers)
        return {
            **hop.from_container(headers),
            _INVOKED: call.variant.spec.name,
            _REQUEST_ID: str(uuid.uuid4()),
        }

    def _asked(self, operation: str, request: web.Request) -> tuple[dict[str, Any], Endpoint]:
        """The parameters, and the endpoint that they name, if it is in service."""
        given = parameters.read(operation, request.match_info["name"], request.headers)
        self._invocations.admit(operation)
        name = given["EndpointName"]
        endpoint = self._fleet.serving(name)
        if endpoint is None:
            raise _refusal(words.NOT_FOUND.format(endpoint=name, account=self._around.account))
        return given, endpoint

    def _component(self, endpoint: Endpoint, name: str | None) -> Endpoint:
        """The inference component that the request names, or the endpoint itself."""
        spec = endpoint.spec
        said = {"endpoint": spec.name, "account": spec.account}
        if not spec.hosts_components:
            if name is not None:
                raise _refusal(words.COMPONENT_UNWANTED.format(**said))
            return endpoint
        if name is None:
            raise _refusal(words.COMPONENT_MISSING.format())
        component = self._fleet.component(spec.name, name)
        if component is None:
            raise _refusal(words.NO_COMPONENT.format(component=name, **said))
        return component

    def _unavailable(self, endpoint: Endpoint) -> AwsError:
        """Nothing can answer now; of a component it is counted, since that is what wakes one without copies."""
        spec = endpoint.spec
        if spec.component is None:
            text = words.NO_INSTANCE.format(endpoint=spec.name, account=spec.account)
            return AwsError(text, "ServiceUnavailable", 503)
        self._invocations.refused(spec)
        return _refusal(words.NO_CAPACITY.format())

    async def _body(self, request: web.Request, limit: int) -> bytes:
        """The request's body, of ``limit`` bytes at most."""
        parts, size = [], 0
        while part := await request.content.readany():
            size += len(part)
            if size > limit:
                raise _refusal(words.BODY_TOO_LONG.format(limit=limit))
            parts.append(part)
        return b"".join(parts)


class _StreamBroken(Exception):
    """The container's connection ended before its answer did."""


async def _next(upstream: aiohttp.ClientResponse) -> bytes:
    """What has come since; nothing at the end."""
    try:
        return await upstream.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise _StreamBroken(str(error) or type(error).__name__) from error


def _broken(message: str, code: str) -> bytes:
    return eventstream.exception("ModelStreamError", {"Message": message, "ErrorCode": code})


def _refusal(text: str) -> AwsError:
    return AwsError(text, "ValidationError", 400)


def _answering_errors(handler: _Handler) -> _Handler:
    """Errors in the form of the rest-json protocol: the name in a header, the members in the body."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except AwsError as error:
            headers = {
                "Content-Type": "application/json",
                "x-amzn-ErrorType": error.code,
                _REQUEST_ID: str(uuid.uuid4()),
            }
            return web.Response(status=error.status, body=hop.document(error), headers=headers)

    return answer
