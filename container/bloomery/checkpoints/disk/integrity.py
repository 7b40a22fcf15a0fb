"""Whether what has come is what was sent: checksums of files and parts, and what the files themselves show."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from awscrt.checksums import combine_crc64nvme, crc64nvme

from bloomery.checkpoints import safetensors_header
from bloomery.checkpoints.disk.journal import Written
from bloomery.checkpoints.source import Entry
from bloomery.errors import CheckpointError

INDEX_SUFFIX = ".index.json"
_CHUNK = 512 << 10  # stays in the processor's cache between the copy and the checksum


def running(data: memoryview, before: int) -> int:
    """The CRC64NVME of what had ``before``, followed by ``data``. Outside the interpreter's lock; tens of GB/s."""
    return int(crc64nvme(data, before))


def combined(parts: Iterable[Written]) -> int | None:
    """The CRC64NVME of a file of these parts, in this order; None when one of them has none."""
    total = 0
    for part in parts:
        if part.crc64nvme is None:
            return None
        total = int(combine_crc64nvme(total, part.crc64nvme, part.length))
    return total


def crc_of(file: int, start: int, length: int) -> int:
    """The CRC64NVME of a range of an open file; of fewer bytes when the file ends before. Raises OSError."""
    space, crc, end = memoryview(bytearray(min(_CHUNK, length) or 1)), 0, start + length
    while start < end and (count := os.preadv(file, [space[: end - start]], start)):
        crc = running(space[:count], crc)
        start += count
    return crc


def crc_of_file(path: Path) -> int:
    """The CRC64NVME of a whole file. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return crc_of(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def sha256_of(file: int, size: int) -> str:
    """In hex, of an open file. Parts of a SHA-256 cannot be combined, so this reads the file from its beginning."""
    space, digest, start = memoryview(bytearray(1 << 20)), hashlib.sha256(), 0
    while start < size and (count := os.preadv(file, [space], start)):
        digest.update(space[:count])
        start += count
    return digest.hexdigest()


def evidence(entry: Entry) -> str:
    """By which checksum ``entry`` can be verified, "" when its source vouches for none."""
    return "CRC64NVME" if entry.crc64nvme is not None else "SHA-256" if entry.sha256 is not None else ""


def mismatch(entry: Entry, file: int, crc: int | None) -> str:
    """What does not agree between ``entry`` and an open file whose CRC64NVME is ``crc``; "" when all does."""
    if entry.crc64nvme is not None:
        if crc == entry.crc64nvme:
            return ""
        return f"its CRC64NVME is {crc or 0:016x} and should be {entry.crc64nvme:016x}"
    if entry.sha256 is not None and (found := sha256_of(file, entry.size)) != entry.sha256:
        return f"its SHA-256 is {found} and should be {entry.sha256}"
    return ""


def first_difference(left: memoryview, right: memoryview) -> int | None:
    """The index of the first byte in which two equally long pieces differ."""
    low, high = 0, len(left)
    if left.tobytes() == right.tobytes():
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle].tobytes() == right[low:middle].tobytes():
            low = middle
        else:
            high = middle
    return low


def check_header(file: int, entry: Entry, present: int, where: str) -> None:
    """Check a safetensors file whose first ``present`` bytes are in ``file``, as far as its header is among them.

    Raises CheckpointError.
    """
    if not entry.name.endswith(".safetensors"):
        return
    length = safetensors_header.length_of(os.pread(file, safetensors_header.LENGTH_BYTES, 0), entry.size, where)
    if length <= present:
        safetensors_header.parse(os.pread(file, length, 0), entry.size, where)


def check_index(file: int, entry: Entry, names: frozenset[str], uri: str) -> None:
    """Check that the files that a checkpoint's index names are among ``names``. Raises CheckpointError.

    A directory whose upload broke off is found before its other 300 GB are fetched.
    """
    if not entry.name.endswith(INDEX_SUFFIX):
        return
    try:
        listed = set(json.loads(os.pread(file, entry.size, 0))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):  # some other file that ends so
        return
    folder = entry.name.rpartition("/")[0]
    missing = sorted(str(name) for name in listed if f"{folder}/{name}".lstrip("/") not in names)
    if missing:
        raise CheckpointError(
            f"{uri} is incomplete: {entry.name} names {len(listed)} files, and {len(missing)} of them are not there, "
            f"for instance {missing[0]!r}: complete its upload."
        )
