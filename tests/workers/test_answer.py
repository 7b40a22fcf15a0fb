from __future__ import annotations

import asyncio

import pytest

from bloomery.errors import StreamError
from bloomery.workers.answer import StreamBuffer


async def read(buffer: StreamBuffer) -> list[bytes]:
    return [piece async for piece in buffer]


async def test_pieces_come_out_in_order_and_then_the_end():
    buffer = StreamBuffer(limit=100, reader_grace=1, patience=1)
    for piece in (b"a", b"", b"b"):
        await buffer.put(piece)
    buffer.end()

    assert await read(buffer) == [b"a", b"b"]


async def test_a_failure_comes_after_what_was_already_there():
    buffer = StreamBuffer(limit=100, reader_grace=1, patience=1)
    await buffer.put(b"a")
    buffer.fail(StreamError("first"))
    buffer.fail(StreamError("second"))
    await buffer.put(b"too late")

    assert await anext(buffer) == b"a"
    with pytest.raises(StreamError, match="first"):
        await anext(buffer)


async def test_a_writer_waits_for_a_reader_who_still_reads():
    buffer = StreamBuffer(limit=2, reader_grace=30, patience=30)

    async def write() -> None:
        for number in range(20):
            await buffer.put(b"%02d" % number)
        buffer.end()

    writing = asyncio.create_task(write())
    assert await read(buffer) == [b"%02d" % number for number in range(20)]
    await writing


async def test_a_reader_who_stops_reading_loses_the_stream_and_the_writer_goes_on():
    buffer = StreamBuffer(limit=2, reader_grace=0.05, patience=30)

    for _ in range(10):
        await buffer.put(b"xx")

    assert await anext(buffer) == b"xx"
    with pytest.raises(StreamError, match="reads too slowly: 2 bytes wait"):
        await anext(buffer)


async def test_a_reader_may_not_hold_the_writer_up_for_ever_by_reading_now_and_then():
    buffer = StreamBuffer(limit=1, reader_grace=30, patience=0.2)

    async def trickle() -> None:
        async for _ in buffer:
            await asyncio.sleep(0.05)

    reading = asyncio.create_task(trickle())
    async with asyncio.timeout(20):
        while not buffer.failed:
            await buffer.put(b"x")
    with pytest.raises(StreamError, match="reads too slowly"):
        await reading


async def test_put_now_never_waits_and_a_reader_who_still_reads_gets_everything():
    buffer = StreamBuffer(limit=2, reader_grace=30, patience=30)
    for number in range(12):  # six times the limit, before the reader has had a turn
        buffer.put_now(b"%d" % (number % 10))
    buffer.end()

    assert not buffer.failed
    assert b"".join(await read(buffer)) == b"012345678901"


async def test_put_now_fails_the_stream_of_a_reader_who_takes_nothing():
    buffer = StreamBuffer(limit=2, reader_grace=0.05, patience=30)
    for _ in range(2):
        buffer.put_now(b"xx")
    await asyncio.sleep(0.1)
    assert await anext(buffer) == b"xx"  # it only paused
    for _ in range(2):
        buffer.put_now(b"xx")
    assert not buffer.failed
    await asyncio.sleep(0.1)
    buffer.put_now(b"xx")
    assert buffer.failed


async def test_put_now_fails_the_stream_of_a_reader_who_is_far_too_slow():
    buffer = StreamBuffer(limit=2, reader_grace=30, patience=30)
    for _ in range(17):
        buffer.put_now(b"xx")
    assert buffer.failed


async def test_an_abandoned_buffer_drops_everything():
    buffer = StreamBuffer(limit=2, reader_grace=30, patience=30)
    await buffer.put(b"xx")
    buffer.discard()
    await buffer.put(b"xx")

    assert not buffer.full
