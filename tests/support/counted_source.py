"""A source over a directory that remembers what was read of it, and breaks connections where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from awscrt import checksums

from bloomery.checkpoints.source import Body, Entry, TransientError


class CountedSource:
    """``breaks``: after how many bytes of an answer a connection breaks, one value per answer from the first on;
    ``flips``: the offset of a byte that comes wrong, as often as ``flip_times`` says."""

    licence = None

    def __init__(
        self, directory: Path, *, breaks: Sequence[int] = (), flips: int | None = None, flip_times: int = 1
    ) -> None:
        self.uri = f"s3://bucket/{directory.name}"
        self.directory, self._breaks = directory, list(breaks)
        self._flips, self._flip_times = flips, flip_times
        self._lock = threading.Lock()
        self.reads: list[tuple[str, int, int]] = []  # file, start, bytes that came

    def entries(self) -> list[Entry]:
        return [Entry(path.name, path.stat().st_size, "1") for path in sorted(self.directory.iterdir())]

    def checksummed(self, entries: Sequence[Entry]) -> list[Entry]:
        data = {entry.name: (self.directory / entry.name).read_bytes() for entry in entries}
        return [replace(entry, crc64nvme=checksums.crc64nvme(data[entry.name])) for entry in entries]

    def safetensors(self) -> tuple[Entry, ...]:
        """The weights, with their checksums."""
        return tuple(self.checksummed([entry for entry in self.entries() if entry.name.endswith(".safetensors")]))

    def connect(self, http: object = None) -> _Connection:
        return _Connection(self)

    def times_read(self, entry: Entry) -> list[int]:
        """How often each byte has come."""
        times = [0] * entry.size
        for name, start, length in self.reads:
            if name == entry.name:
                for index in range(start, start + length):
                    times[index] += 1
        return times

    def begin(self) -> int | None:
        with self._lock:
            return self._breaks.pop(0) if self._breaks else None

    def damaged(self, name: str, start: int, data: memoryview) -> None:
        with self._lock:
            self.reads.append((name, start, len(data)))
            if self._flips is not None and self._flip_times and start <= self._flips < start + len(data):
                data[self._flips - start] ^= 1
                self._flip_times -= 1


class _Connection:
    def __init__(self, source: CountedSource) -> None:
        self._source = source

    @contextmanager
    def read(self, entry: Entry, start: int, length: int) -> Iterator[Body]:
        data = (self._source.directory / entry.name).read_bytes()[start : start + length]
        yield _Body(self._source, entry.name, start, data, self._source.begin())

    def close(self) -> None:
        pass


class _Body:
    def __init__(self, source: CountedSource, name: str, start: int, data: bytes, breaks: int | None) -> None:
        self._source, self._name, self._start, self._data, self._breaks = source, name, start, data, breaks
        self._position = 0

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._data) - self._position, 70_001)
        if self._breaks is not None:
            if self._position == self._breaks:
                raise TransientError(f"{self._name}: the connection broke")
            count = min(count, self._breaks - self._position)
        buffer[:count] = self._data[self._position : self._position + count]
        self._source.damaged(self._name, self._start + self._position, buffer[:count])
        self._position += count
        return count
