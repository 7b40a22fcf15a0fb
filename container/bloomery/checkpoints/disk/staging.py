"""One file of a fetch on its way: written under a hidden name, in parts in any order, and checked when all are there.

A file that is not what its source vouches for is read once more. What differs between the two readings is where a byte
was flipped on the way; what does not differ was wrong before it left.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from bloomery.checkpoints.disk import integrity
from bloomery.checkpoints.disk.journal import Journal, Written
from bloomery.checkpoints.disk.vouching import Vouched
from bloomery.checkpoints.part import Part
from bloomery.checkpoints.source import Entry, Place
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class StagedFile:
    """``where`` names the file in errors. ``written``: what is in it already (``resumable``). ``put`` takes parts that
    must be read again. ``check`` looks at the complete file, and raises what it finds wrong; ``known`` is asked then
    for what the source vouches for.
    """

    def __init__(
        self,
        entry: Entry,
        path: Path,
        where: str,
        written: Iterable[Written],
        journal: Journal,
        put: Callable[[Iterable[Part]], object],
        check: Callable[[int, Entry], object],
        known: Vouched,
        *,
        verify: bool = True,
    ) -> None:
        self.entry, self.path, self.where = entry, path, where
        self._journal, self._put, self._look, self._known, self._verify = journal, put, check, known, verify
        self._lock = threading.Lock()
        self._file: int | None = None
        self._written = {part.start: part for part in written}
        self._unread = 0  # parts that are on their way
        self._second = False  # whether this is the second reading of the whole file
        self._headers_read = 0
        self._differences: list[int] = []  # offsets in the file

    @property
    def crc64nvme(self) -> int | None:
        """Of the whole file, once it is complete; None when nobody has computed it."""
        return integrity.combined(self._in_order())

    def missing(self, part_bytes: int) -> list[Part]:
        """The parts that have to be read, of at most ``part_bytes`` each; to be called once."""
        found, position = [], 0
        there = [(part.start, part.start + part.length) for part in self._in_order()]
        for start, stop in [*there, (self.entry.size, self.entry.size)]:
            for first in range(position, start, part_bytes):
                length = min(part_bytes, start - first)
                found.append(Part(self.entry, first, length, _Writing(self, first, length)))
            position = stop
        self._unread = len(found)
        return found

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def descriptor(self) -> int:
        """The open file. Raises OSError."""
        with self._lock:
            if self._file is None:
                self._file = os.open(self.path, _FLAGS, 0o666)
            return self._file

    def completed(self, part: Written, difference: int | None = None) -> None:
        """``part`` has been written. The last one has the file checked."""
        with self._lock:
            self._written[part.start] = part
            self._differences += [] if difference is None else [difference]
        self._journal.note(self.entry, part)
        if not part.start and not self._second and not self._header_holds(part):
            self._put([self._comparing(part)])
            return
        with self._lock:
            self._unread -= 1
            last = not self._unread
        if last:
            self.check()

    def _header_holds(self, part: Written) -> bool:
        """Whether the first part has a good header, as far as it can tell; it is read twice before that is denied."""
        try:
            integrity.check_header(self.descriptor(), self.entry, part.length, self.where)
        except CheckpointError:
            self._headers_read += 1
            if self._headers_read > 1:
                self.path.unlink(missing_ok=True)  # else the next fetch would begin behind the bad header
                raise
            return False
        return True

    def check(self) -> None:
        """Check the complete file; who puts no parts of it calls this. May put parts, and raises what is wrong."""
        file = self.descriptor()
        wrong = integrity.mismatch(self._known()[self.entry.name], file, self.crc64nvme) if self._verify else ""
        if wrong and self._second:
            self.close()
            self.path.unlink()  # nothing of it is worth resuming
            raise CheckpointError(f"{self.where} is damaged: {wrong}, after two readings; {self._blame()}")
        if wrong:
            log.warning("%s: %s; reading it once more", self.where, wrong)
            parts = self._in_order()
            self._second, self._unread = True, len(parts)
            self._put(self._comparing(part) for part in parts)
            return
        if self._differences:
            log.warning("%s: byte %d was wrong in one reading, and is right now", self.where, min(self._differences))
        integrity.check_header(file, self.entry, self.entry.size, self.where)
        self._look(file, self.entry)
        self.close()

    def _blame(self) -> str:
        if self._differences:
            return (
                f"they differ at byte {min(self._differences)}: bytes are flipped on the way, by the network, a proxy "
                "or this machine's memory."
            )
        return (
            f"both gave the same bytes 0-{self.entry.size - 1}: the file was damaged before, or its checksum is that "
            "of another; upload it again."
        )

    def _comparing(self, part: Written) -> Part:
        return Part(self.entry, part.start, part.length, _Comparing(self, part.start, part.length))

    def _in_order(self) -> list[Written]:
        with self._lock:
            return [self._written[start] for start in sorted(self._written)]

    @property
    def verifies(self) -> bool:
        """Whether checksums are computed."""
        return self._verify


def resumable(entry: Entry, path: Path, claimed: Iterable[Written], *, verify: bool) -> list[Written]:
    """Make the file at ``path``, and tell which of the ``claimed`` parts are in it. Raises OSError.

    A part without a checksum is believed by who wants none, and by nobody else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, _FLAGS, 0o666)
    try:
        if os.fstat(file).st_size == entry.size:
            return [part for part in claimed if not verify or _is_intact(file, part)]
        os.ftruncate(file, 0)
        os.ftruncate(file, entry.size)  # sparse: it takes its room as it is written
        return []
    finally:
        os.close(file)


def _is_intact(file: int, part: Written) -> bool:
    return part.crc64nvme is not None and integrity.crc_of(file, part.start, part.length) == part.crc64nvme


class _Checking:
    """A part of a file, of which it knows the checksum so far; None when nobody wants one."""

    def __init__(self, file: StagedFile, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length
        self._crc = 0 if file.verifies else None

    def space(self, offset: int, scratch: memoryview) -> memoryview:
        """Everything passes through ``scratch``."""
        return scratch

    def complete(self) -> None:
        """Enter it."""
        self._file.completed(self._part())

    def _part(self) -> Written:
        return Written(self._start, self._length, self._crc)

    def _count(self, data: memoryview) -> None:
        if self._crc is not None:
            self._crc = integrity.running(data, self._crc)


class _Writing(_Checking):
    """Writes it, chunk by chunk; or another process does (``part.FileSink``)."""

    def take(self, offset: int, data: memoryview) -> None:
        """Raises OSError when the disk is full."""
        self._count(data)
        write(self._file.descriptor(), data, self._start + offset)

    def place(self, offset: int) -> Place:
        """As ``part.FileSink``."""
        return Place(str(self._file.path), self._start + offset, self._crc)

    def placed(self, crc: int | None) -> None:
        """As ``part.FileSink``."""
        self._crc = crc


class _Comparing(_Checking):
    """Reads a part for the second time, and notes where it differs from the first."""

    difference: int | None = None

    def take(self, offset: int, data: memoryview) -> None:
        """As ``_Writing``; writes what differs only."""
        position = self._start + offset
        before = memoryview(bytearray(len(data)))
        os.preadv(self._file.descriptor(), [before], position)
        at = integrity.first_difference(before, data)
        if at is not None and self.difference is None:
            self.difference = position + at
        self._count(data)
        if at is not None:
            write(self._file.descriptor(), data[at:], position + at)

    def complete(self) -> None:
        """Enter it, with the difference."""
        self._file.completed(self._part(), self.difference)


def write(file: int, data: memoryview, position: int) -> None:
    """Write all of ``data``: one call may write less, for instance on a network's file system."""
    while data:
        count = os.pwrite(file, data, position)
        data, position = data[count:], position + count
