"""What is counted of a model's requests: plain numbers, because every request pays for them.

``http_api.metrics`` puts them into Prometheus' form when somebody asks.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Literal, Self

from bloomery.errors import RequestError
from bloomery.workers.answer import Answer

# "gone": the client left before its answer was complete; "broken": a stream ended before its end.
Outcome = Literal["2xx", "3xx", "4xx", "5xx", "gone", "broken"]
_CLASSES: dict[int, Outcome] = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


class Histogram:
    """Durations in seconds, counted by how long they were at most."""

    BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)  # not cumulative; the last one is of what was longer still
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.sum += seconds


class ModelMetrics:
    """One model's counts since it was registered."""

    def __init__(self) -> None:
        self.requests: Counter[Outcome] = Counter()
        self.request_duration = Histogram()  # from the request's arrival to the last byte of its answer
        self.time_to_first_chunk = Histogram()  # of a stream, from the request's arrival
        self.time_per_chunk = Histogram()  # between two chunks of a stream

    def request(self) -> RequestMetrics:
        """A request has arrived."""
        return RequestMetrics(self)


class RequestMetrics:
    """One request: a context around its whole life. ``watch`` its answer, or call the other methods where they fit."""

    __slots__ = ("_began", "_last_chunk", "_metrics", "_outcome")

    def __init__(self, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self._outcome: Outcome = "5xx"
        self._last_chunk: float | None = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, RequestError):
            self.answered(error.status)
        elif isinstance(error, (asyncio.CancelledError, ConnectionError)):
            self._outcome = "gone"
        elif error is not None:
            self._outcome = "5xx"
        self._metrics.requests[self._outcome] += 1
        if self._outcome != "gone":
            self._metrics.request_duration.observe(time.perf_counter() - self._began)

    def answered(self, status: int) -> None:
        """The status line is known."""
        self._outcome = _CLASSES.get(status // 100, "5xx")

    def chunk(self) -> None:
        """A chunk of a stream is about to be sent."""
        now = time.perf_counter()
        if self._last_chunk is None:
            self._metrics.time_to_first_chunk.observe(now - self._began)
        else:
            self._metrics.time_per_chunk.observe(now - self._last_chunk)
        self._last_chunk = now

    def streaming(self) -> None:
        """A stream is being read. Until ``answered`` says again that all of it was, it is a broken one."""
        self._outcome = "broken"

    def watch(self, answer: Answer) -> Answer:
        """The same answer; its status is counted now, and its chunks when they are read."""
        self.answered(answer.code)
        return answer if answer.stream is None else replace(answer, stream=_Watched(answer.stream, answer.code, self))


class _Watched:
    """A stream whose chunks are counted as they are read."""

    __slots__ = ("_request", "_status", "_stream")

    def __init__(self, stream: AsyncIterator[bytes], status: int, request: RequestMetrics) -> None:
        self._stream, self._status, self._request = stream, status, request

    def __aiter__(self) -> Self:
        self._request.streaming()
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._stream)
        except StopAsyncIteration:
            self._request.answered(self._status)
            raise
        self._request.chunk()
        return piece
