"""The headers of a source's safetensors files: where each tensor lies, checked before anything is allocated by it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from awscrt import checksums

from bloomery.checkpoints import safetensors_header
from bloomery.checkpoints.safetensors_header import LENGTH_BYTES, Header, TensorInfo
from bloomery.checkpoints.source import Entry, Source
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.streaming.stream import Piece
from bloomery.errors import CheckpointError


@dataclass(frozen=True)
class Tensors:
    """``found``: each tensor's file and place, by its stored name. ``headers``: the bytes that were read for it."""

    found: Mapping[str, tuple[Entry, TensorInfo]]
    headers: Sequence[Piece]


def read_headers(source: Source, files: Sequence[Entry], connections: int) -> Tensors:
    """The tensors of ``files``. Raises CheckpointError."""
    found: dict[str, tuple[Entry, TensorInfo]] = {}
    with ThreadPoolExecutor(connections) as pool:
        headers = list(pool.map(lambda entry: _header(source, entry), files))
    for entry, (header, _) in zip(files, headers, strict=True):
        for name, info in header.tensors.items():
            if name in found:
                raise CheckpointError(f"{source.uri} holds {name} twice: in {found[name][0].name} and in {entry.name}")
            found[name] = entry, info
    return Tensors(found, [piece for _, piece in headers])


def _header(source: Source, entry: Entry) -> tuple[Header, Piece]:
    where = f"{source.uri.rstrip('/')}/{entry.name}"
    with contextlib.closing(source.connect()) as connection:
        # Not a byte more than it has: the tensors after it are read by whoever needs them.
        data = read_bytes(connection, entry, 0, LENGTH_BYTES)
        length = safetensors_header.length_of(data, entry.size, where)
        if length > LENGTH_BYTES:
            data += read_bytes(connection, entry, LENGTH_BYTES, length - LENGTH_BYTES)
    return safetensors_header.parse(data, entry.size, where), Piece(entry.name, 0, length, checksums.crc64nvme(data))
