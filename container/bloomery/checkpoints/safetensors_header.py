"""The header of a safetensors file, checked before anybody relies on it: where each tensor lies and what it is.

The file is eight bytes with the length of the header (little endian), the header in JSON, and the tensors' bytes
without a gap. Every number in it comes from whoever wrote the file, so nothing is allocated or read by it unchecked.
Torch-free. The format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from bloomery.errors import CheckpointError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
# Bits of one element, by the format's names.
DTYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_FIRST_READ = 128 << 10  # holds most headers, so that one request is enough
_MAX_DIMENSIONS = 64
_LFS_POINTER = b"version "  # what a clone has without git-lfs; as a length it would be no header's


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: ``start`` is its first byte in the file, ``length`` its bytes, ``dtype`` the format's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


@dataclass(frozen=True)
class Header:
    """The tensors in the order in which they lie in the file; ``length``: bytes before the first of them."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    length: int


def read(read_range: Callable[[int, int], bytes], size: int, where: str) -> Header:
    """The header of a file of ``size`` bytes, of which ``read_range(start, length)`` gives parts.

    One read is enough for most files, two for all. ``where`` names the file in errors. Raises CheckpointError.
    """
    first = read_range(0, min(size, _FIRST_READ))
    length = length_of(first, size, where)
    if length > len(first):
        first += read_range(len(first), length - len(first))
    return parse(first[:length], size, where)


def of_file(path: Path) -> Header:
    """The header of a file on this machine. Raises CheckpointError."""
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)

            def read_range(start: int, length: int) -> bytes:
                file.seek(start)
                return file.read(length)

            return read(read_range, size, str(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


def length_of(first: bytes, size: int, where: str) -> int:
    """How many bytes lie before the tensors, by the ``first`` bytes (at least eight) of a file of ``size`` bytes."""
    if len(first) < LENGTH_BYTES:
        raise _bad(where, f"it has {size} bytes, and its header alone has more")
    if first.startswith(_LFS_POINTER):
        raise _bad(where, "it is a git-lfs pointer of a few lines, not the weights (run `git lfs pull` there)")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise _bad(where, f"its header would have {length} bytes; {MAX_HEADER_BYTES} are the most")
    if LENGTH_BYTES + length > size:
        raise _bad(where, f"its header would have {length} bytes, and the whole file has {size}")
    return LENGTH_BYTES + length


def parse(data: bytes, size: int, where: str) -> Header:
    """The header in ``data``, all bytes before the tensors of a file of ``size`` bytes. Raises CheckpointError."""
    try:
        document = json.loads(data[LENGTH_BYTES:].decode("utf-8"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
        raise _bad(where, f"its header is no JSON ({error})") from error
    if not isinstance(document, dict):
        raise _bad(where, "its header is no JSON object")
    metadata = document.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(where, "__metadata__ in its header is no object of strings")
    found = sorted(
        (_tensor(name, value, len(data), where) for name, value in document.items()),
        key=lambda tensor: (tensor.start, tensor.length),
    )
    end = len(data)
    for tensor in found:
        if tensor.start != end:
            what = "overlaps the tensor before it" if tensor.start < end else "leaves a gap before it"
            raise _bad(where, f"tensor {tensor.name!r} begins at byte {tensor.start} and {what}, which ends at {end}")
        end += tensor.length
    if end != size:
        raise _bad(where, f"its tensors end at byte {end}, and it has {size} bytes")
    return Header({tensor.name: tensor for tensor in found}, metadata, len(data))


def _tensor(name: str, value: object, base: int, where: str) -> TensorInfo:
    """One entry of the header; ``base``: where the tensors begin."""
    if not isinstance(value, dict):
        raise _bad(where, f"tensor {name!r} is described by no JSON object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise _bad(where, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _bad(where, f"tensor {name!r} has the impossible shape {shape!r}")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _bad(where, f"tensor {name!r} has the impossible data_offsets {offsets!r}")
    length = offsets[1] - offsets[0]
    if math.prod(shape) * bits != length * 8:
        raise _bad(where, f"tensor {name!r}, {dtype} {shape}, cannot have the {length} bytes that it claims")
    return TensorInfo(name, str(dtype), tuple(shape), base + offsets[0], length)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    """A list of numbers that are not negative; true and false are none."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON allows a name twice, and readers differ in which one they believe."""
    found = dict(pairs)
    if len(found) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is there twice")
    return found


def _bad(where: str, what: str) -> CheckpointError:
    return CheckpointError(f"{where} is damaged, or no safetensors file: {what}; fetch or convert it again.")
