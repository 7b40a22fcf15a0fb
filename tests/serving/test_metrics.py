from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bloomery.errors import BadRequestError, CapacityError, StreamError
from bloomery.serving.metrics import Histogram, ModelMetrics, Outcome
from bloomery.workers.answer import Answer


async def pieces(*, fail: bool = False) -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"
    if fail:
        raise StreamError("broke")


def test_a_duration_is_counted_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.0011, 1000.0):
        histogram.observe(seconds)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (1, 1, 1)
    assert histogram.sum == pytest.approx(1000.0021)


@pytest.mark.parametrize(("status", "outcome"), [(200, "2xx"), (204, "2xx"), (404, "4xx"), (507, "5xx"), (99, "5xx")])
def test_an_answer_is_counted_by_the_class_of_its_status(status: int, outcome: Outcome) -> None:
    metrics = ModelMetrics()
    with metrics.request() as request:
        request.watch(Answer(status, "as asked"))
    assert metrics.requests == {outcome: 1}
    assert sum(metrics.request_duration.counts) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(BadRequestError(""), "4xx"), (CapacityError(""), "5xx"), (ValueError(), "5xx"), (ConnectionResetError(), "gone")],
)
def test_a_request_that_fails_is_counted_by_its_error(error: Exception, outcome: Outcome) -> None:
    metrics = ModelMetrics()
    with pytest.raises(type(error)), metrics.request():
        raise error
    assert metrics.requests == {outcome: 1}


def test_a_client_that_leaves_is_counted_and_its_time_is_not() -> None:
    metrics = ModelMetrics()
    with pytest.raises(asyncio.CancelledError), metrics.request():
        raise asyncio.CancelledError
    assert metrics.requests == {"gone": 1}
    assert sum(metrics.request_duration.counts) == 0


async def test_a_streams_first_chunk_is_timed_apart_from_the_others() -> None:
    metrics = ModelMetrics()
    with metrics.request() as request:
        answer = request.watch(Answer(200, "OK", stream=pieces()))
        assert answer.stream is not None
        assert [piece async for piece in answer.stream] == [b"a", b"b"]
    assert (sum(metrics.time_to_first_chunk.counts), sum(metrics.time_per_chunk.counts)) == (1, 1)
    assert metrics.requests == {"2xx": 1}


async def test_a_stream_that_breaks_off_is_no_success() -> None:
    metrics = ModelMetrics()
    with metrics.request() as request:
        answer = request.watch(Answer(200, "OK", stream=pieces(fail=True)))
        assert answer.stream is not None
        with pytest.raises(StreamError):
            [piece async for piece in answer.stream]
    assert metrics.requests == {"broken": 1}


async def test_a_stream_that_is_given_up_is_no_success() -> None:
    metrics = ModelMetrics()
    with metrics.request() as request:
        answer = request.watch(Answer(200, "OK", stream=pieces()))
        assert answer.stream is not None
        async for _ in answer.stream:
            break  # as for a client that reads too slowly
    assert metrics.requests == {"broken": 1}
