"""What a fetch that was cut short has written, one line for each finished part, so that the next one goes on from it.

A line is written after the data, and neither is forced to the disk. That is safe because a line is a claim, not a
proof: whoever goes on reads the part from the disk and compares its checksum (tens of GB/s), so that what a power cut
took, or anybody changed, is fetched anew. Forcing every part to the disk would cost more than that, in every fetch.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from bloomery.checkpoints.source import Entry


@dataclass(frozen=True)
class Written:
    """``length`` bytes from ``start`` of a file; ``crc64nvme`` of these bytes, None when nobody has computed it."""

    start: int
    length: int
    crc64nvme: int | None


class Journal:
    """Appends lines, from any thread. A line is one write, so that lines never mix and only the last can be torn."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # the torn line of a killed fetch shall not spoil the next one

    def note(self, entry: Entry, part: Written) -> None:
        """``part`` of ``entry`` has been written."""
        crc = None if part.crc64nvme is None else f"{part.crc64nvme:016x}"
        line = json.dumps([entry.name, entry.identity, entry.size, part.start, part.length, crc])
        with self._lock:
            os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)


def read(path: Path) -> dict[tuple[str, str, int], list[Written]]:
    """By name, identity and size of a file, its parts as the journal at ``path`` claims them; empty without one."""
    found: dict[tuple[str, str, int], dict[int, Written]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            name, identity, size, start, length, crc = json.loads(line)
            part = Written(int(start), int(length), None if crc is None else int(crc, 16))
            if 0 <= part.start < part.start + part.length <= size:
                found.setdefault((name, identity, size), {})[part.start] = part
        except (ValueError, TypeError):
            continue  # torn
    return {key: _without_overlap(parts) for key, parts in found.items()}


def _without_overlap(parts: dict[int, Written]) -> list[Written]:
    chosen: list[Written] = []
    for start in sorted(parts):
        if not chosen or start >= chosen[-1].start + chosen[-1].length:
            chosen.append(parts[start])
    return chosen
