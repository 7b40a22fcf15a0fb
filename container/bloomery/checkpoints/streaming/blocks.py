"""Which bytes of which files are wanted, cut into blocks that one request reads.

A tensor's bytes are wanted as segments: one for a whole tensor or a run of rows. Segments that touch each other in a
file are joined, so that the many small tensors of a layer cost one request, and long ones are cut, so that several
connections share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from bloomery.checkpoints.source import Entry

# One request. Large enough that S3's latency of some 30 ms hardly counts, small enough to spread a layer.
BLOCK_BYTES = 8 << 20
# What is read, checked and put into place in one go: it shall still lie in the processor's cache for all three.
CHUNK_BYTES = 1 << 20
# Inside a tensor everything is cut at multiples of this, so that no element is cut in two.
_GRAIN = 16


class Landing(Protocol):
    """Where one tensor's bytes go. ``position`` counts the bytes of the whole tensor as it is stored."""

    def memory(self, position: int, length: int) -> memoryview | None:
        """The final place of these bytes, writable, when they go there as they are; None: ``land`` puts them there."""
        ...

    def land(self, position: int, data: memoryview) -> None:
        """Put these bytes, which are whole elements, where they belong; those that nobody here wants are passed over.

        Called by several threads at once, for different bytes.
        """
        ...

    def arrived(self, count: int) -> None:
        """``count`` more bytes of the tensor as stored are dealt with."""
        ...


@dataclass(frozen=True, eq=False)
class Segment:
    """``length`` bytes of a tensor from ``position``; in the file they begin at ``start``."""

    landing: Landing
    entry: Entry
    start: int
    position: int
    length: int


@dataclass(frozen=True, eq=False)
class Block:
    """What one request reads: segments that touch each other. ``number``: of a block that ranks share, the same in all
    of them, -1 of one that they do not; ``owner``: which of them reads it."""

    segments: tuple[Segment, ...]
    number: int = -1
    owner: int = 0

    @property
    def shared(self) -> bool:
        """Whether several ranks get it."""
        return self.number >= 0

    @property
    def entry(self) -> Entry:
        """The file."""
        return self.segments[0].entry

    @property
    def start(self) -> int:
        """In the file."""
        return self.segments[0].start

    @property
    def length(self) -> int:
        """Bytes."""
        last = self.segments[-1]
        return last.start + last.length - self.start

    def overlapping(self, offset: int, length: int) -> Iterator[tuple[Segment, int, int]]:
        """The segments in ``length`` bytes from ``offset`` of this block: each with the first of its own bytes that is
        among them, and how many are."""
        low, high = self.start + offset, self.start + offset + length
        for segment in self.segments:
            first, last = max(low, segment.start), min(high, segment.start + segment.length)
            if first < last:
                yield segment, first - segment.start, last - first

    def cut(self, offset: int, room: int) -> int:
        """How many bytes from ``offset``, at most ``room``, end between two elements; at least one grain fits."""
        end = min(offset + room, self.length)
        for segment, first, count in self.overlapping(offset, end - offset):
            if first + count < segment.length:  # cut short
                inside = _floor(segment, first + count)
                return segment.start + inside - self.start - offset
        return end - offset

    def deliver(self, offset: int, data: memoryview) -> None:
        """Let every segment have its bytes of ``data``, which begins at ``offset``."""
        taken = 0
        for segment, first, count in self.overlapping(offset, len(data)):
            segment.landing.land(segment.position + first, data[taken : taken + count])
            segment.landing.arrived(count)
            taken += count


def cut_into_blocks(segments: Iterable[Segment], size: int = BLOCK_BYTES) -> list[Block]:
    """``segments`` in the order of the files, joined where they touch, in blocks of at most ``size`` bytes."""
    found: list[Block] = []
    run: list[Segment] = []
    length = 0
    for segment in sorted(segments, key=lambda segment: (segment.entry.name, segment.start)):
        for piece in _pieces(segment, size):
            touches = run and run[-1].entry == piece.entry and run[-1].start + run[-1].length == piece.start
            if run and (not touches or length + piece.length > size):
                found.append(Block(tuple(run)))
                run, length = [], 0
            run.append(piece)
            length += piece.length
    return [*found, Block(tuple(run))] if run else found


def _pieces(segment: Segment, size: int) -> Iterator[Segment]:
    """``segment`` cut into equal pieces of at most ``size`` bytes: a short last one would leave a connection idle."""
    count = max(1, -(-segment.length // size))
    cuts = [_floor(segment, segment.length * index // count) for index in range(count)] + [segment.length]
    for first, last in pairwise(cuts):
        if last > first:
            start, position = segment.start + first, segment.position + first
            yield Segment(segment.landing, segment.entry, start, position, last - first)


def _floor(segment: Segment, inside: int) -> int:
    """The last place at or before ``inside`` of the segment that lies between two elements of its tensor."""
    return max(0, (segment.position + inside) // _GRAIN * _GRAIN - segment.position)
