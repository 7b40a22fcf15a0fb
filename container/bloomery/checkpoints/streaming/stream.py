"""Straight from a source into tensors' own memory, without the disk between.

A load asks for tensors batch by batch (``Streamer.read``) and waits for each (``Batch.wait``) while the next ones are
on their way already. Bytes that belong where they are as they are, are read there; the others (columns, another dtype,
a GPU) pass through small buffers. What several ranks of a machine need is read by one of them (``handover``).
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from awscrt import checksums

from bloomery.checkpoints import transfer
from bloomery.checkpoints.part import Part
from bloomery.checkpoints.retry import RetryPolicy
from bloomery.checkpoints.source import Source
from bloomery.checkpoints.streaming.blocks import CHUNK_BYTES, Block, Segment, cut_into_blocks
from bloomery.checkpoints.streaming.handover import Handover

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Piece:
    """Bytes of a file that one rank has read, and their CRC64NVME."""

    file: str
    start: int
    length: int
    crc: int


class Batch:
    """Bytes that were asked for together; ``left``: how many are not in place yet."""

    def __init__(self, stream: Streamer, left: int) -> None:
        self._stream, self.left = stream, left

    def wait(self) -> None:
        """Until all of them are in place. Raises the error that ended the stream."""
        self._stream.wait(self)


class Streamer:
    """Reads from one source over several connections, in the order in which it is asked.

    ``staging`` makes a buffer of CHUNK_BYTES for what passes through one; by default any memory will do.
    """

    def __init__(
        self,
        source: Source,
        connections: int,
        handover: Handover | None = None,
        staging: Callable[[], memoryview] | None = None,
        policy: RetryPolicy = transfer.POLICY,
    ) -> None:
        self.source, self.handover = source, handover
        self.pieces: list[Piece] = []  # what this rank has read
        self._staging, self._buffers = staging, list[memoryview]()
        self._changed = handover.changed if handover else threading.Condition()
        self._waiting: deque[tuple[Block, Batch]] = deque()  # for other ranks to want them too
        self._expected: dict[int, _Expected] = {}  # by number: what other ranks will hand over
        self._digests: list[int] = []  # of all shared blocks so far, one by one
        self._load = [0] * (len(handover.members) if handover else 1)
        self._transfer = transfer.Transfer(source, connections, policy=policy)
        if handover:
            handover.start(self._handed, self._put_ready)

    def read(self, own: Sequence[Segment], shared: Sequence[Segment] = ()) -> Batch:
        """Begin to read: what only this rank needs, and what all ranks need and ask for in the same order.

        Without other ranks ``shared`` is read like the rest.
        """
        if self.handover is None:
            own, shared = [*own, *shared], ()
        mine, joint = cut_into_blocks(own), [self._numbered(block) for block in cut_into_blocks(shared)]
        batch = Batch(self, sum(block.length for block in [*mine, *joint]))
        with self._changed:
            for block in joint:
                if self.handover and block.owner == self.handover.index:
                    self._waiting.append((block, batch))
                else:
                    self._expected[block.number] = _Expected(block, batch, block.length)
        if self.handover and joint:
            self.handover.announce(self._digests[-len(joint) :])
        self._put_ready()
        self._put((block, batch) for block in mine)
        return batch

    def wait(self, batch: Batch) -> None:
        """See ``Batch.wait``."""
        with self._changed:
            while batch.left:
                if (failure := self.failure) is not None:
                    raise failure
                self._changed.wait(_TICK_SECONDS)

    @property
    def failure(self) -> BaseException | None:
        """What ended the stream: in another rank, or here."""
        return (self.handover.failure if self.handover else None) or self._transfer.error

    def close(self, reason: BaseException | None = None) -> None:
        """End the connections; ``reason``: why this rank gives up, for the others. What is on its way is lost."""
        reason = reason or self.failure
        if self.handover:
            if reason is not None:
                self.handover.give_up(str(reason))
            self.handover.wait_no_more()
        self._transfer.close()
        if self.handover:
            self.handover.close()

    def count(self, batch: Batch, length: int) -> None:
        """So many more bytes of a batch are in place."""
        with self._changed:
            batch.left -= length
            if not batch.left:
                self._changed.notify_all()

    def borrow(self, scratch: memoryview) -> memoryview:
        """A staging buffer, until it is given back; or ``scratch``."""
        if self._staging is None:
            return scratch
        with self._changed:
            return self._buffers.pop() if self._buffers else self._staging()

    def give_back(self, buffer: memoryview) -> None:
        """A buffer is free again."""
        if self._staging is not None:
            with self._changed:
                self._buffers.append(buffer)

    def _numbered(self, block: Block) -> Block:
        """With a number and an owner: whoever has least to read so far, which all ranks count alike."""
        owner = self._load.index(min(self._load))
        self._load[owner] += block.length
        plan = f"{block.entry.name} {block.start} {block.length}".encode()
        self._digests.append(zlib.crc32(plan, self._digests[-1] if self._digests else 0))
        return Block(block.segments, len(self._digests) - 1, owner)

    def _put_ready(self) -> None:
        """Read what every rank wants by now. Called by the handover's thread, too."""
        ready = []
        with self._changed:
            while self.handover and self._waiting and self.handover.ready(self._waiting[0][0].number):
                ready.append(self._waiting.popleft())
        self._put(ready)

    def _put(self, jobs: Iterable[tuple[Block, Batch]]) -> None:
        self._transfer.put(
            Part(block.entry, block.start, block.length, _Sink(self, block, batch)) for block, batch in jobs
        )

    def _handed(self, number: int, offset: int, data: memoryview) -> None:
        """Another rank has read this. Called by the handover's thread."""
        expected = self._expected[number]
        expected.block.deliver(offset, data)
        expected.left -= len(data)
        if not expected.left:
            del self._expected[number]
        self.count(expected.batch, len(data))


@dataclass
class _Expected:
    """A block that another rank reads."""

    block: Block
    batch: Batch
    left: int


class _Sink:
    """Where the bytes of one block go: chunk by chunk, each of whole elements, even when connections break."""

    def __init__(self, stream: Streamer, block: Block, batch: Batch) -> None:
        self._stream, self._block, self._batch = stream, block, batch
        self._crc = self._start = self._filled = 0
        self._chunk = memoryview(b"")
        self._done: Callable[[], object] = lambda: None  # what is to be done with the chunk when it is full

    def space(self, offset: int, scratch: memoryview) -> memoryview:
        """As ``part.Sink``."""
        if not self._filled:
            self._start = offset
            self._begin(scratch)
        return self._chunk[self._filled :]

    def take(self, offset: int, data: memoryview) -> None:
        """As ``part.Sink``."""
        self._crc = checksums.crc64nvme(data, self._crc)
        self._filled += len(data)
        if self._filled == len(self._chunk):
            self._filled = 0
            self._done()

    def complete(self) -> None:
        """As ``part.Sink``."""
        block, batch = self._block, self._batch
        self._stream.pieces.append(Piece(block.entry.name, block.start, block.length, self._crc))
        # The thread that carried this block remembers the sink until its next one: it shall not keep the tensors.
        del self._block, self._batch, self._chunk, self._done
        self._stream.count(batch, block.length)

    def _begin(self, scratch: memoryview) -> None:
        """A new chunk: in the ring that others read, in the tensor itself, or in a buffer."""
        block, handover = self._block, self._stream.handover
        if block.shared and handover:
            slot, memory = handover.slot()
            self._chunk = memory[: block.cut(self._start, len(memory))]
            self._done = lambda: self._share(handover, slot)
            return
        length = block.cut(self._start, CHUNK_BYTES)
        segment, first, count = next(block.overlapping(self._start, length))
        own = segment.landing.memory(segment.position + first, count)
        if own is not None:
            self._chunk, self._done = own, lambda: segment.landing.arrived(count)
            return
        buffer = self._stream.borrow(scratch)
        self._chunk = buffer[: block.cut(self._start, len(buffer))]
        self._done = lambda: self._land(buffer)

    def _share(self, handover: Handover, slot: int) -> None:
        handover.publish(slot, self._block.number, self._start, len(self._chunk))
        self._block.deliver(self._start, self._chunk)
        handover.copied(slot)

    def _land(self, buffer: memoryview) -> None:
        self._block.deliver(self._start, self._chunk)
        self._stream.give_back(buffer)
