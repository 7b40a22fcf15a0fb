"""The tensors of any checkpoint, row by row: safetensors from wherever they are, ``.bin`` files from the disk.

numpy holds them in the formats of ``number_formats``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from awscrt.checksums import combine_crc64nvme, crc64nvme

from bloomery.checkpoints.choice import weight_files
from bloomery.checkpoints.part import CHUNK_BYTES, Part
from bloomery.checkpoints.source import Entry, Source
from bloomery.checkpoints.splitting import presharded
from bloomery.checkpoints.splitting.number_formats import HELD, Array, flat_bytes, itemsize
from bloomery.checkpoints.splitting.shard_plan import Stored
from bloomery.checkpoints.streaming.stream import Piece
from bloomery.checkpoints.streaming.stream_headers import read_headers
from bloomery.checkpoints.transfer import Transfer
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

CONNECTIONS = 8
_TICK_SECONDS = 0.2

_HEADS = ("lm_head.weight", "embed_out.weight")


class Rows(Protocol):
    """Rows of a tensor, on their way."""

    def result(self) -> Array:
        """Wait for them. A scalar has one row, and comes without an axis. Raises CheckpointError."""
        ...


class Tensors(Protocol):
    """Reads rows of tensors, several blocks of them at once."""

    stored: Sequence[Stored]  # in the order in which they lie in the files

    def ask(self, name: str, start: int, stop: int) -> Rows:
        """Begin to read rows along the first axis, as they are stored."""
        ...

    def check(self) -> None:
        """Compare what was read, all of it, with the checksums that the source has. Raises CheckpointError."""
        ...

    def close(self) -> None:
        """End all reading at once."""
        ...


def files_to_split(names: Sequence[str], read_file: Callable[[str], bytes], where: str) -> list[str]:
    """The files among ``names`` that hold the checkpoint's tensors. Raises CheckpointError when there is none."""
    if presharded.CONFIG in names:
        raise CheckpointError(
            f"{where} is split already ({presharded.CONFIG}): name the checkpoint that it was made from; a server "
            "loads it as it is, over any number of ranks"
        )
    if found := weight_files(names, read_file, where):
        return found
    raise CheckpointError(
        f"{where} holds no weights that can be split: neither *.safetensors nor pytorch_model*.bin, but "
        f"{', '.join(sorted(names)[:8]) or 'nothing'}"
    )


class SafetensorsTensors:
    """Of the ``files`` (safetensors) of a source."""

    def __init__(self, source: Source, files: Sequence[Entry]) -> None:
        headers = read_headers(source, files, CONNECTIONS)
        self._uri, self._files, self._found = source.uri.rstrip("/"), files, headers.found
        self._pieces = list(headers.headers)
        self._transfer = Transfer(source, CONNECTIONS)
        self.stored: Sequence[Stored] = [
            Stored(info.name, info.dtype, info.shape) for _, info in headers.found.values()
        ]

    def ask(self, name: str, start: int, stop: int) -> Rows:
        """As ``Tensors``."""
        entry, info = self._found[name]
        itemsize(info.dtype, name)
        block = np.empty((stop - start, *info.shape[1:]) if info.shape else (), HELD[info.dtype])
        first = info.start + start * (info.length // max(1, info.shape[0] if info.shape else 1))
        rows = _Arriving(
            block, self._transfer, lambda crc: self._pieces.append(Piece(entry.name, first, block.nbytes, crc))
        )
        self._transfer.put([Part(entry, first, block.nbytes, rows)])
        return rows

    def check(self) -> None:
        """As ``Tensors``. Nothing is compared of a file that has no checksum, or was not read whole, once."""
        for entry in self._files:
            end = crc = 0
            pieces = (piece for piece in self._pieces if piece.file == entry.name)
            for piece in sorted(pieces, key=lambda piece: piece.start):
                if piece.start != end:
                    break
                crc, end = combine_crc64nvme(crc, piece.crc, piece.length), end + piece.length
            if end != entry.size or entry.crc64nvme is None:
                log.info("%s/%s: there is no checksum to compare with", self._uri, entry.name)
            elif crc != entry.crc64nvme:
                raise CheckpointError(
                    f"{self._uri}/{entry.name}: its bytes have the CRC64NVME {crc:016x} instead of "
                    f"{entry.crc64nvme:016x}: they were damaged on the way, or where they are kept; try again"
                )

    def close(self) -> None:
        """As ``Tensors``."""
        self._transfer.close()


class _Arriving:
    """A block that a transfer fills; ``came`` hears the CRC64NVME of it."""

    def __init__(self, block: Array, transfer: Transfer, came: Callable[[int], object]) -> None:
        self._block, self._memory, self._transfer, self._came = block, flat_bytes(block), transfer, came
        self._here = threading.Event()

    def space(self, offset: int, scratch: memoryview) -> memoryview:
        """As ``part.Sink``."""
        return self._memory[offset : offset + CHUNK_BYTES]

    def take(self, offset: int, data: memoryview) -> None:
        """As ``part.Sink``: it lies where it belongs."""

    def complete(self) -> None:
        """As ``part.Sink``."""
        self._came(crc64nvme(self._memory))
        self._here.set()

    def result(self) -> Array:
        """As ``Rows``."""
        while not self._here.wait(_TICK_SECONDS):
            if self._transfer.error is not None:
                raise self._transfer.error
        return self._block


class PickledTensors:
    """Of torch's own files, mapped from the disk; ``tied``: whether the head is the embedding, and may be left out."""

    def __init__(self, files: Sequence[Path], tied: bool) -> None:
        from bloomery.checkpoints.splitting.pickled import load_tensors

        self._tensors: dict[str, Any] = {}
        for file in files:
            self._tensors |= load_tensors(file)
        seen = {_address(tensor): name for name, tensor in reversed(self._tensors.items()) if name not in _HEADS}
        for name in _HEADS:
            if tied and name in self._tensors and _address(self._tensors[name]) in seen:
                del self._tensors[name]
        self.stored: Sequence[Stored] = [
            Stored(name, _torch_format(name, tensor), tuple(tensor.shape)) for name, tensor in self._tensors.items()
        ]

    def ask(self, name: str, start: int, stop: int) -> Rows:
        """As ``Tensors``; reads when it is waited for."""
        return _Mapped(self._tensors[name], start, stop)

    def check(self) -> None:
        """Done already, by ``fetch``."""

    def close(self) -> None:
        """Unmap the files."""
        self._tensors.clear()


@dataclass(frozen=True)
class _Mapped:
    tensor: Any
    start: int
    stop: int

    def result(self) -> Array:
        """As ``Rows``."""
        import torch

        tensor, start, stop = self.tensor, self.start, self.stop
        part = (tensor[start:stop] if tensor.dim() else tensor).contiguous()
        bits = part.view(torch.int16).numpy().view("<u2") if part.dtype == torch.bfloat16 else part.numpy()
        return np.asarray(bits)


def _address(tensor: Any) -> tuple[int, tuple[int, ...]]:
    return int(tensor.data_ptr()), tuple(tensor.shape)


def _torch_format(name: str, tensor: Any) -> str:
    import torch

    formats: Mapping[Any, str] = {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
        torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
        torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    if tensor.dtype not in formats:
        raise CheckpointError(f"{name} is in {tensor.dtype}, which safetensors and numpy do not share")
    return formats[tensor.dtype]
