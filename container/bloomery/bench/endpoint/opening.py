"""TARGET -> who asks it, and what else can be learnt of it. The one place that knows of both kinds of endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from bloomery.bench.endpoint import loading_time
from bloomery.bench.endpoint.clients import Client, HttpClient, RuntimeClient, address, is_url
from bloomery.bench.endpoint.surroundings import Watch
from bloomery.bench.endpoint.workload import Dialect
from bloomery.errors import BenchmarkError

MAX_THREADS = 512  # invocations under way at SageMaker; more would be this client's own traffic jam


@dataclass(frozen=True)
class Place:
    """Where SageMaker is, as the command line says it."""

    target: str | None = None
    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None


class Opened(Protocol):
    """An endpoint that can be asked."""

    dialect: Dialect

    def connect(self, *, stream: bool) -> Client:
        """A client; inside a running event loop."""

    def watch(self) -> Watch:
        """Begin to watch this machine."""

    def load_time(self) -> tuple[float | None, str]:
        """Seconds, and where they are from, or why they are not known."""


@contextmanager
def opened(target: str, place: Place, timeout: float) -> Iterator[Opened]:
    """For the length of a ``with`` block. Raises ConfigurationError, TargetError, CallError and BenchmarkError."""
    if is_url(target):
        yield _Server(target, timeout)
        return
    from bloomery.sagemaker.session import Session

    with Session.open(
        place.target, region=place.region, profile=place.profile, endpoint_url=place.endpoint_url
    ) as found:
        told = found.call("sagemaker", "DescribeEndpoint", EndpointName=target)
        if told["EndpointStatus"] not in ("InService", "Updating", "SystemUpdating"):
            raise BenchmarkError(f"the endpoint {target} is {told['EndpointStatus']}: nothing can be asked of it now")
        yield _SageMaker(target, found, told)


class _Server:
    def __init__(self, url: str, timeout: float) -> None:
        self._url, self.dialect = address(url)
        self._timeout = timeout

    def connect(self, *, stream: bool) -> Client:
        return HttpClient(self._url, self._timeout)

    def watch(self) -> Watch:
        return _watch(self._url)

    def load_time(self) -> tuple[float | None, str]:
        return loading_time.of_server(self._url)


class _SageMaker:
    dialect: Dialect = "invocations"

    def __init__(self, name: str, session: Any, told: Any) -> None:
        self._name, self._session, self._told = name, session, told

    def connect(self, *, stream: bool) -> Client:
        runtime = self._session.streaming_runtime if stream else self._session.runtime
        return RuntimeClient(runtime, {"EndpointName": self._name}, MAX_THREADS)

    def watch(self) -> Watch:
        return _watch(self._session.url or "")

    def load_time(self) -> tuple[float | None, str]:
        return loading_time.of_endpoint(self._told)


def _watch(url: str) -> Watch:
    parts = urlsplit(url)
    return Watch.of(parts.hostname or "", parts.port)
