"""A gzip file whose bytes depend on nothing but what is written.

Compressors differ: zlib, zlib-ng and their versions make other bytes of the same data. So nothing is compressed: the
blocks are "stored" (RFC 1951, 3.2.4), each as large as may be. A model archive holds code, kilobytes of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

_BLOCK = 0xFFFF  # bytes of a stored block at most
# Method deflate, no flags, no time, no level, operating system unknown (RFC 1952, 2.3).
_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"


class StoredGzip:
    """Write-only; ``emit`` receives the gzip file's bytes in order. ``close`` ends it."""

    def __init__(self, emit: Callable[[bytes], object]) -> None:
        self._emit = emit
        self._waiting = bytearray()
        self._crc = self._size = 0
        emit(_HEADER)

    def write(self, data: bytes) -> int:
        """Append ``data``."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._waiting += data
        while len(self._waiting) > _BLOCK:  # the last block is kept: it has another header
            self._block(self._waiting[:_BLOCK], last=False)
            del self._waiting[:_BLOCK]
        return len(data)

    def close(self) -> None:
        """Write the last block and the trailer."""
        self._block(self._waiting, last=True)
        self._emit(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _block(self, data: bytearray, *, last: bool) -> None:
        self._emit(struct.pack("<BHH", last, len(data), len(data) ^ 0xFFFF) + data)
