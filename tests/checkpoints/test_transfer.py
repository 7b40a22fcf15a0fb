"""The engine over a source in memory whose connections do what a test says; real servers are in test_faults."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from bloomery.checkpoints import part
from bloomery.checkpoints.part import CHUNK_BYTES, Part
from bloomery.checkpoints.retry import RetryPolicy
from bloomery.checkpoints.source import ChangedError, Entry, TransientError
from bloomery.checkpoints.transfer import Transfer
from bloomery.errors import CheckpointError

DATA = os.urandom(2_000_000)
ENTRY = Entry("model.safetensors", len(DATA), "1")
PART = 300_000
IMPATIENT = RetryPolicy(attempts=3, base=0.001)


class MemorySource:
    """``fault`` is asked before each request and may raise, or return after how many bytes the connection breaks."""

    uri, licence = "memory", None

    def __init__(self, fault: Callable[[int, int], int | None] = lambda start, length: None) -> None:
        self.fault = fault
        self.asked: list[tuple[int, int]] = []
        self.connections: list[MemoryConnection] = []
        self.stalled = threading.Event()

    def entries(self) -> Sequence[Entry]:
        return [ENTRY]

    def checksummed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        return entries

    def connect(self, http: object = None) -> MemoryConnection:
        self.connections.append(MemoryConnection(self))
        return self.connections[-1]

    @property
    def opened(self) -> int:
        return len(self.connections)

    @property
    def closed(self) -> int:
        return sum(connection.ended.is_set() for connection in self.connections)


class MemoryConnection:
    def __init__(self, source: MemorySource) -> None:
        self.source = source
        self.ended = threading.Event()

    @contextmanager
    def read(self, entry: Entry, start: int, length: int) -> Iterator[MemoryBody]:
        self.source.asked.append((start, length))
        yield MemoryBody(self, start, start + length, self.source.fault(start, length))

    def close(self) -> None:
        self.ended.set()


class MemoryBody:
    def __init__(self, connection: MemoryConnection, start: int, end: int, breaks: int | None) -> None:
        self.connection, self.position, self.end = connection, start, end
        self.breaks = end if breaks is None else start + breaks

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), self.end - self.position, self.breaks - self.position, 70_001)
        if not count and self.position < self.end:
            raise TransientError("reset by peer")
        buffer[:count] = DATA[self.position : self.position + count]
        self.position += count
        return count


class StallingBody(MemoryBody):
    """Gives nothing until the connection is closed."""

    def readinto(self, buffer: memoryview) -> int:
        self.connection.source.stalled.set()
        assert self.connection.ended.wait(30)
        raise TransientError("closed")


class Memory:
    """Parts go here, chunk by chunk through the engine's scratch."""

    def __init__(self, start: int, length: int) -> None:
        self.start, self.data, self.completed = start, bytearray(length), 0

    def space(self, offset: int, scratch: memoryview) -> memoryview:
        assert len(scratch) == CHUNK_BYTES
        return scratch

    def take(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def complete(self) -> None:
        self.completed += 1
        assert self.data == DATA[self.start : self.start + len(self.data)]


def parts() -> list[Part]:
    cuts = range(0, len(DATA), PART)
    return [Part(ENTRY, start, length := min(PART, len(DATA) - start), Memory(start, length)) for start in cuts]


def completed(parts: Sequence[Part]) -> list[int]:
    return [part.sink.completed for part in parts]  # type: ignore[attr-defined]


def test_every_part_comes_once_over_as_many_connections_as_are_allowed() -> None:
    source, wanted, came = MemorySource(), parts(), []
    with Transfer(source, 3, came.append) as transfer:
        transfer.put(wanted)
        transfer.wait()
    assert completed(wanted) == [1] * len(wanted)
    assert sorted(source.asked) == [(part.start, part.length) for part in wanted]
    assert sum(came) == len(DATA)
    assert source.opened == source.closed == 3


def test_more_can_be_put_at_any_time() -> None:
    source, wanted = MemorySource(), parts()
    with Transfer(source, 2) as transfer:
        for part in wanted:
            transfer.put([part])
            transfer.wait()
    assert completed(wanted) == [1] * len(wanted)
    assert source.opened <= 2


def test_a_sink_can_put_more_before_the_rest() -> None:
    source = MemorySource()
    one, two, three = parts()[:3]
    with Transfer(source, 1) as transfer:

        class Adding(Memory):
            def complete(self) -> None:
                transfer.put([three], first=True)

        transfer.put([Part(ENTRY, 0, PART, Adding(0, PART)), one, two])
        transfer.wait()
    assert [start for start, _ in source.asked] == [0, three.start, one.start, two.start]


def test_nothing_to_carry_takes_no_connection() -> None:
    source = MemorySource()
    with Transfer(source, 4) as transfer:
        transfer.put([])
        transfer.wait()
    assert source.opened == 0


def test_a_part_goes_on_where_its_connection_broke() -> None:
    broken: set[int] = set()

    def fault(start: int, length: int) -> int | None:
        if start in broken or start % PART:
            return None
        broken.add(start)
        return 100_000

    source, wanted = MemorySource(fault), parts()
    with Transfer(source, 4, policy=IMPATIENT) as transfer:
        transfer.put(wanted)
        transfer.wait()
    assert completed(wanted) == [1] * len(wanted)
    assert sum(length for _, length in source.asked) == len(DATA) + sum(part.length - 100_000 for part in wanted)


def test_progress_between_failures_makes_patience_new() -> None:
    source, wanted = MemorySource(lambda start, length: 75_000), parts()[:1]
    with Transfer(source, 1, policy=IMPATIENT) as transfer:
        transfer.put(wanted)
        transfer.wait()
    assert len(source.asked) == PART / 75_000


def test_a_few_bytes_between_failures_are_no_progress() -> None:
    source = MemorySource(lambda start, length: 1_000)
    with Transfer(source, 1, policy=IMPATIENT) as transfer:
        transfer.put(parts()[:1])
        with pytest.raises(CheckpointError, match="given up after 3 attempts and 0 s without progress"):
            transfer.wait()


def test_what_never_comes_is_given_up_with_its_cause() -> None:
    source = MemorySource(lambda start, length: 0)
    with Transfer(source, 2, policy=IMPATIENT) as transfer:
        transfer.put(parts())
        with pytest.raises(CheckpointError, match="reset by peer; given up after 3 attempts"):
            transfer.wait()
    assert source.opened == source.closed


def refusing(error: CheckpointError) -> Callable[[int, int], int | None]:
    def fault(start: int, length: int) -> int | None:
        raise error

    return fault


@pytest.mark.parametrize("error", [ChangedError("it was replaced"), CheckpointError("access is denied")])
def test_what_no_attempt_can_change_ends_the_transfer_at_once(error: CheckpointError) -> None:
    source, wanted = MemorySource(refusing(error)), parts()
    with Transfer(source, 2) as transfer:
        transfer.put(wanted)
        with pytest.raises(type(error), match=str(error)):
            transfer.wait()
        assert transfer.error is error
    assert len(source.asked) <= 2
    assert completed(wanted) == [0] * len(wanted)


def test_who_is_asked_to_slow_down_does() -> None:
    refused: list[float] = []

    def fault(start: int, length: int) -> int | None:
        if len(refused) < 4:
            refused.append(time.monotonic())
            raise TransientError("SlowDown", slow_down=True, after=0.1)
        return None

    source, wanted = MemorySource(fault), parts()
    began = time.monotonic()
    with Transfer(source, 4) as transfer:
        transfer.put(wanted)
        transfer.wait()
    assert completed(wanted) == [1] * len(wanted)
    assert time.monotonic() - began >= 0.1


def test_what_a_sink_raises_ends_the_transfer() -> None:
    class Full(Memory):
        def take(self, offset: int, data: memoryview) -> None:
            raise OSError(28, "No space left on device")

    with Transfer(MemorySource(), 2) as transfer:
        transfer.put([Part(ENTRY, 0, PART, Full(0, PART)), *parts()])
        with pytest.raises(OSError, match="No space left"):
            transfer.wait()


def test_a_tick_is_heard_while_nothing_comes_and_may_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.checkpoints.test_transfer.MemoryBody", StallingBody)
    source, wanted, ticks = MemorySource(), parts(), []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3 and source.stalled.is_set():
            raise KeyboardInterrupt

    def carry() -> None:
        with Transfer(source, 3) as transfer:
            transfer.put(wanted)
            transfer.wait(tick)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        carry()
    assert time.monotonic() - began < 20
    assert source.opened == source.closed
    assert completed(wanted) == [0] * len(wanted)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transfer-")]


def test_a_connection_that_trickles_is_exchanged_and_what_it_brought_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "_SLOWEST_SECONDS", 0.0)
    source, wanted = MemorySource(), parts()
    with Transfer(source, 2, policy=IMPATIENT) as carrying:
        carrying.put(wanted)
        carrying.wait()
    assert completed(wanted) == [1] * len(wanted)
    assert len(source.asked) > len(wanted)
    assert {start for start, _ in source.asked} > {part.start for part in wanted}
