"""The tensors of any checkpoint, row by row: safetensors from wherever they are, ``.bin`` files from the disk.

numpy holds them in the formats of ``number_formats``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from awscrt.checksums import combine_crc64nvme, crc64nvme

from bloomery.checkpoints import presharded, safetensors_header
from bloomery.checkpoints.number_formats import HELD, Array, flat_bytes, itemsize
from bloomery.checkpoints.safetensors_header import TensorInfo
from bloomery.checkpoints.shard_plan import Stored
from bloomery.checkpoints.source import Entry
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_PICKLE_INDEX, _PICKLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
_HEADS = ("lm_head.weight", "embed_out.weight")


class Tensors(Protocol):
    """Reads rows of tensors; several threads may do so at once."""

    stored: Sequence[Stored]  # in the order in which they lie in the files

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows along the first axis, as they are stored; a scalar has one row, and comes without an axis."""
        ...

    def check(self) -> None:
        """Compare what was read, all of it, with the checksums that the source has. Raises CheckpointError."""
        ...

    def close(self) -> None: ...


def weight_files(names: Sequence[str], read_text: Callable[[str], bytes], where: str) -> list[str]:
    """The files among ``names`` that hold the checkpoint's tensors: safetensors before ``.bin``, an index before all
    that lies around. Raises CheckpointError when there is none."""
    if presharded.CONFIG in names:
        raise CheckpointError(
            f"{where} is split already ({presharded.CONFIG}): name the checkpoint that it was made from; a server "
            "loads it as it is, over any number of ranks"
        )
    for index, single, ending in ((_INDEX, _SINGLE, ".safetensors"), (_PICKLE_INDEX, _PICKLE, ".bin")):
        if index in names:
            found = _named_in(read_text(index), f"{where}/{index}")
            if missing := [name for name in found if name not in names]:
                raise CheckpointError(f"{where}/{index} names {missing[0]}, which is not there: upload it again")
            return found
        if single in names:
            return [single]
        if loose := sorted(name for name in names if name.endswith(ending) and "/" not in name):
            return loose
    raise CheckpointError(
        f"{where} holds no weights that can be split: neither *.safetensors nor pytorch_model*.bin, but "
        f"{', '.join(sorted(names)[:8]) or 'nothing'}"
    )


def _named_in(index: bytes, where: str) -> list[str]:
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{where} is not a checkpoint index with a weight_map: {error!r}") from error


class SafetensorsTensors:
    """Of the ``files`` (safetensors) of a source. ``read`` fills memory with a range of a file."""

    def __init__(self, files: Sequence[Entry], read: Callable[[Entry, int, memoryview], None], where: str) -> None:
        self._read, self._uri = read, where
        self._sums: dict[str, list[tuple[int, int, int]]] = {entry.name: [] for entry in files}  # start, length, crc
        self._where: dict[str, tuple[Entry, TensorInfo]] = {}
        for entry in files:
            for info in self._header(entry, f"{where}/{entry.name}"):
                if info.name in self._where:
                    first = self._where[info.name][0].name
                    raise CheckpointError(f"{where}: tensor {info.name!r} is both in {first} and in {entry.name}")
                self._where[info.name] = (entry, info)
        self.stored: Sequence[Stored] = [Stored(info.name, info.dtype, info.shape) for _, info in self._where.values()]

    def _header(self, entry: Entry, where: str) -> Sequence[TensorInfo]:
        def read_range(start: int, length: int) -> bytes:
            data = bytearray(length)
            self._read(entry, start, memoryview(data))
            return bytes(data)

        header = safetensors_header.read(read_range, entry.size, where)
        self._sums[entry.name].append((0, header.length, crc64nvme(read_range(0, header.length))))
        return list(header.tensors.values())

    def rows(self, name: str, start: int, stop: int) -> Array:
        """As ``Tensors``."""
        entry, info = self._where[name]
        itemsize(info.dtype, name)
        shape = (stop - start, *info.shape[1:]) if info.shape else ()
        block = np.empty(shape, HELD[info.dtype])
        row_bytes = info.length // max(1, info.shape[0] if info.shape else 1)
        if block.nbytes:
            first, memory = info.start + start * row_bytes, flat_bytes(block)
            self._read(entry, first, memory)
            self._sums[entry.name].append((first, memory.nbytes, crc64nvme(memory)))
        return block

    def check(self) -> None:
        """As ``Tensors``. Nothing is compared of a file that has no checksum, or was not read whole, once."""
        for entry in {entry.name: entry for entry, _ in self._where.values()}.values():
            end = crc = 0
            for start, length, part in sorted(self._sums[entry.name]):
                if start != end:
                    break
                crc, end = combine_crc64nvme(crc, part, length), end + length
            if end != entry.size or entry.crc64nvme is None:
                log.info("%s/%s: there is no checksum to compare with", self._uri, entry.name)
            elif crc != entry.crc64nvme:
                raise CheckpointError(
                    f"{self._uri}/{entry.name}: its bytes have the CRC64NVME {crc:016x} instead of "
                    f"{entry.crc64nvme:016x}: they were damaged on the way, or where they are kept; try again"
                )

    def close(self) -> None:
        """Whoever gave ``read`` closes what is behind it."""


class PickledTensors:
    """Of torch's own files, mapped from the disk; ``tied``: whether the head is the embedding, and may be left out."""

    def __init__(self, files: Sequence[Path], tied: bool) -> None:
        from bloomery.checkpoints.pickled import load_tensors

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

    def rows(self, name: str, start: int, stop: int) -> Array:
        """As ``Tensors``."""
        import torch

        tensor = self._tensors[name]
        part = (tensor[start:stop] if tensor.dim() else tensor).contiguous()
        bits = part.view(torch.int16).numpy().view("<u2") if part.dtype == torch.bfloat16 else part.numpy()
        return np.asarray(bits)

    def check(self) -> None:
        """Done already, by ``fetch``."""

    def close(self) -> None:
        """Unmap the files."""
        self._tensors.clear()


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
