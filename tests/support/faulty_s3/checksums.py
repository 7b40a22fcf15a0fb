"""The checksums S3 knows, by their names in headers: ``x-amz-checksum-crc64nvme: BASE64``."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Callable

from awscrt import checksums

_BLOCK = 1 << 20

ALGORITHMS: dict[str, Callable[[bytes], bytes]] = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": lambda data: checksums.crc32c(data).to_bytes(4, "big"),
    "crc64nvme": lambda data: checksums.crc64nvme(data).to_bytes(8, "big"),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


def checksum(algorithm: str, data: bytes) -> str:
    """As S3 writes it."""
    return base64.b64encode(ALGORITHMS[algorithm](data)).decode()


def crc64nvme_of_file(file: int) -> str:
    """As S3 writes it; the file's position stays where it is. The library releases the GIL."""
    value = position = 0
    while block := os.pread(file, _BLOCK, position):
        value = checksums.crc64nvme(block, value)
        position += len(block)
    return base64.b64encode(value.to_bytes(8, "big")).decode()
