"""Landings without torch."""

from __future__ import annotations

import threading


class BytesLanding:
    """Bytes as they are. ``direct``: read straight into them; ``got``: how many have been dealt with."""

    def __init__(self, length: int, direct: bool = False) -> None:
        self.data, self.got, self._direct = bytearray(length), 0, direct
        self._lock = threading.Lock()

    def memory(self, position: int, length: int) -> memoryview | None:
        return memoryview(self.data)[position : position + length] if self._direct else None

    def land(self, position: int, data: memoryview) -> None:
        assert position % 16 == 0 or len(self.data) < 16, "an element was cut"
        self.data[position : position + len(data)] = data

    def arrived(self, count: int) -> None:
        with self._lock:
            self.got += count
