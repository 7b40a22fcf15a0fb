"""Asynchronous invocations: accepted at once, sent to an instance that has room, the answer put into S3."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.metrics import Metrics
from bloomery.sagemaker.emulator.aws.periodic import Periodic
from bloomery.sagemaker.emulator.containers.fleet import LocalFleet
from bloomery.sagemaker.emulator.containers.instance import Instance
from bloomery.sagemaker.emulator.containers.running import Endpoint, Variant
from bloomery.sagemaker.emulator.deployment import AsyncOutput
from bloomery.sagemaker.emulator.invoking import hop
from bloomery.sagemaker.emulator.invoking.invocations import Invocations
from bloomery.sagemaker.emulator.invoking.limits import Limits

log = logging.getLogger(__name__)

_AT_A_TIME = 4  # per instance, where the configuration leaves it to SageMaker
_LOOK = 0.1  # seconds between two looks for an instance with room
_REPORT = 0.5  # seconds between two values of the backlog; an empty one counts, or nothing would scale in


@dataclass(frozen=True)
class Accepted:
    """What the client is told. Locations are s3:// URIs."""

    inference_id: str
    output: str
    failure: str | None


@dataclass(frozen=True)
class _Request:
    accepted: Accepted
    location: str | None  # of the input, in S3; None: ``body`` is it
    body: bytes
    headers: dict[str, str]  # for the container
    seconds: float  # that the container may take
    expires: float  # on the clock of time.monotonic
    waiting_limit: float


@dataclass
class _Queue:
    waiting: deque[_Request] = field(default_factory=deque)
    dispatching: asyncio.Task[None] | None = None
    active: dict[str, int] = field(default_factory=dict)  # instance id -> asynchronous invocations it has


class Asynchronous:
    """One queue per endpoint, in the order of arrival. Requests that wait are lost with the emulator."""

    def __init__(
        self, fleet: LocalFleet, clients: Clients, metrics: Metrics, invocations: Invocations, limits: Limits
    ) -> None:
        self._fleet, self._clients, self._metrics = fleet, clients, metrics
        self._invocations, self._limits = invocations, limits
        self._queues: dict[str, _Queue] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._reporting = Periodic(self._report_all, _REPORT)
        self._reporting.begin()
        fleet.before_close = self.close

    def accept(self, endpoint: Endpoint, given: Mapping[str, Any], body: bytes) -> Accepted:
        """Queue a request with the parameters ``given``. Raises AwsError."""
        spec, output = endpoint.spec, endpoint.spec.async_output
        said = {"endpoint": spec.name, "account": spec.account}
        if output is None:
            raise AwsError(words.NOT_ASYNCHRONOUS.format(**said), "ValidationError")
        if not output.output:
            raise AwsError(words.NO_OUTPUT.format(**said), "ValidationError")
        location = given.get("InputLocation")
        if (location is None) == (not body):
            raise AwsError(words.BODY_OR_LOCATION.text, "ValidationError")
        accepted = _accepted(output, given)
        waiting = float(given.get("RequestTTLSeconds", self._limits.waiting))
        request = _Request(
            accepted,
            location,
            body,
            hop.to_container({**given, "InferenceId": accepted.inference_id}),
            float(given.get("InvocationTimeoutSeconds", self._limits.asynchronous)),
            time.monotonic() + waiting,
            waiting,
        )
        queue = self._queues.setdefault(spec.name, _Queue())
        queue.waiting.append(request)
        self._report(endpoint, queue)
        if queue.dispatching is None or queue.dispatching.done():
            queue.dispatching = self._task(self._dispatch(spec.name, queue))
        return accepted

    async def close(self) -> None:
        """Drop what waits, and what runs."""
        await self._reporting.end()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _dispatch(self, name: str, queue: _Queue) -> None:
        """Send what waits, first come first served, as there is room; ends when nothing waits, or the endpoint goes."""
        while queue.waiting:
            endpoint = self._fleet.serving(name)
            if endpoint is None:
                del self._queues[name]
                return
            request = queue.waiting[0]
            if time.monotonic() > request.expires:
                queue.waiting.popleft()
                text = words.EXPIRED.format(seconds=request.waiting_limit)
                self._task(self._put_failure(endpoint, request, text))
            elif chosen := _with_room(endpoint, queue):
                queue.waiting.popleft()
                self._task(self._serve(endpoint, *chosen, queue, request))
            else:
                await asyncio.sleep(_LOOK)

    async def _report_all(self) -> None:
        for endpoint in self._fleet.all_serving():
            if endpoint.spec.async_output is not None:
                self._report(endpoint, self._queues.get(endpoint.spec.name, _Queue()))

    def _report(self, endpoint: Endpoint, queue: _Queue) -> None:
        """What waits, as the metrics by which asynchronous endpoints are scaled."""
        instances = sum(len(variant.healthy) for variant in endpoint.variants.values())
        for name, unit, value in (
            ("ApproximateBacklogSize", "Count", len(queue.waiting)),
            ("ApproximateBacklogSizePerInstance", "Count", len(queue.waiting) / max(1, instances)),
            ("HasBacklogWithoutCapacity", "None", float(bool(queue.waiting) and not instances)),
        ):
            self._metrics.add(endpoint.spec.region, {"EndpointName": endpoint.spec.name}, name, unit, value)

    async def _serve(
        self, endpoint: Endpoint, variant: Variant, instance: Instance, queue: _Queue, request: _Request
    ) -> None:
        spec, arrived = endpoint.spec, time.perf_counter()
        try:
            try:
                body = await self._input(endpoint, request)
            finally:
                instance.release()  # from here on the invocation itself counts
            operation = "InvokeEndpointAsync"
            with self._invocations.on(
                operation, endpoint, variant, instance, request.headers, body, arrived
            ) as exchange:
                answer = await hop.ask(
                    self._fleet.session, spec, instance, request.headers, body, request.seconds, exchange
                )
            await self._put(endpoint, request.accepted.output, answer.body, answer.content_type)
        except AwsError as error:
            await self._put_failure(endpoint, request, str(error))
        finally:
            queue.active[instance.id] -= 1

    async def _input(self, endpoint: Endpoint, request: _Request) -> bytes:
        if request.location is None:
            return request.body
        bucket, key = _split(request.location)
        client, region = self._clients, endpoint.spec.region
        try:
            return bytes(await client.run(lambda: _read(client.client("s3", region), bucket, key)))
        except Exception as error:  # botocore's many
            text = words.NO_INPUT.format(uri=request.location, reason=error)
            raise AwsError(text, "ValidationError") from error

    async def _put_failure(self, endpoint: Endpoint, request: _Request, text: str) -> None:
        if request.accepted.failure is not None:
            await self._put(endpoint, request.accepted.failure, text.encode(), "text/plain")
        else:
            log.warning("%s: asynchronous invocation %s: %s", endpoint.spec.name, request.accepted.inference_id, text)

    async def _put(self, endpoint: Endpoint, uri: str, body: bytes, content_type: str) -> None:
        bucket, key = _split(uri)
        try:
            await self._clients.call(
                "s3", endpoint.spec.region, "put_object", Bucket=bucket, Key=key, Body=body, ContentType=content_type
            )
        except Exception as error:  # botocore's many; there is nobody left to tell
            log.warning("%s: nothing could be put into %s: %s", endpoint.spec.name, uri, error)


def _accepted(output: AsyncOutput, given: Mapping[str, Any]) -> Accepted:
    """Where the answer will be: below the endpoint's place, called as the request says or like nothing else."""
    name = str(uuid.uuid4())
    file = given.get("Filename") or f"{name}.out"
    places = [(output.output or "").rstrip("/"), given.get("S3OutputPathExtension", "").strip("/"), file]
    failure = None if output.failure is None else f"{output.failure.rstrip('/')}/{name}-error.out"
    inference_id = given.get("InferenceId") or str(uuid.uuid4())
    return Accepted(inference_id, "/".join(place for place in places if place), failure)


def _with_room(endpoint: Endpoint, queue: _Queue) -> tuple[Variant, Instance] | None:
    """A place for one more invocation, which is taken at once; None when every instance has enough."""
    output = endpoint.spec.async_output
    limit = (output.max_concurrent if output else None) or _AT_A_TIME
    for able in endpoint.able():
        free = [pair for pair in able if queue.active.get(pair[1].id, 0) < limit]
        if free:
            variant, instance = min(free, key=lambda pair: queue.active.get(pair[1].id, 0))
            queue.active[instance.id] = queue.active.get(instance.id, 0) + 1
            instance.take()  # while the input is read: an instance that leaves waits for it
            return variant, instance
    return None


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _read(client: Any, bucket: str, key: str) -> bytes:
    with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
        return bytes(body.read())
