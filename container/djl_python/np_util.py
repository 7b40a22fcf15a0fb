"""NDList, DJL's wire form of a list of arrays. Headers are big-endian, data has the order it names.

    int32 count, then per array: str "NDAR", int32 version, byte has-name [str name], str "default", str type,
    int32 dimensions, int64 each, int32 layout length, 2 bytes each, byte '<' or '>', int32 size, data

Strings carry a 16-bit length in every DJL version, unlike those of the worker frames.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from djl_python.libraries import needed

MAGIC = "NDAR"
VERSION = 3
_TYPES = {
    "FLOAT32": "f4",
    "FLOAT64": "f8",
    "FLOAT16": "f2",
    "UINT8": "u1",
    "INT8": "i1",
    "INT32": "i4",
    "INT64": "i8",
    "BOOLEAN": "?",
    "UINT16": "u2",
    "INT16": "i2",
    "UINT32": "u4",
    "UINT64": "u8",
    "COMPLEX64": "c8",
}
_NAMES = {code: name for name, code in _TYPES.items()}


def to_nd_list(np_list: Any) -> bytes:
    """The NDList bytes of one array or of a list of arrays."""
    np = needed("numpy", "NDList")
    items = list(np_list) if isinstance(np_list, (list, tuple)) else [np_list]
    out = [struct.pack(">i", len(items))]
    for item in items:
        array = np.asarray(item)
        code = "?" if array.dtype.kind == "b" else array.dtype.str[1:]
        if code not in _NAMES:
            raise ValueError(f"NDList has no type for numpy dtype {array.dtype}; it has {', '.join(_TYPES)}")
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        out += _string(MAGIC), struct.pack(">ib", VERSION, 0), _string("default"), _string(_NAMES[code])
        out += struct.pack(f">i{array.ndim}q", array.ndim, *array.shape), struct.pack(">i", array.ndim)
        out += "?".encode("utf-16-be") * array.ndim, b"<", struct.pack(">i", len(data)), data
    return b"".join(out)


def from_nd_list(encoded: bytes | bytearray) -> list[Any]:
    """The arrays in ``encoded``; each is writable and owns its memory."""
    reader = _Reader(encoded)
    return [_read_array(reader) for _ in range(reader.count("array"))]


def _read_array(reader: _Reader) -> Any:
    np = needed("numpy", "NDList")
    magic = reader.string()
    if magic != MAGIC:
        raise ValueError(f"not an NDList: an array begins with {magic!r} instead of {MAGIC!r}")
    version, named = reader.unpack(">ib")
    if version != VERSION:
        raise ValueError(f"NDList version {version} is not supported; this reads version {VERSION}")
    if named:
        reader.string()
    sparse, name = reader.string(), reader.string()
    if sparse != "default":
        raise ValueError(f"NDList storage {sparse!r} is not supported; send dense arrays")
    if name not in _TYPES:
        raise ValueError(f"NDList type {name!r} is unknown; known are {', '.join(_TYPES)}")
    shape = reader.unpack(f">{reader.count('dimension')}q")
    reader.take(2 * reader.count("layout character"))
    order = bytes(reader.take(1))
    data = reader.take(reader.count("data byte"))
    dtype = np.dtype(_TYPES[name]).newbyteorder(">" if order == b">" else "<")
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))


class _Reader:
    """A position in a buffer; every length is checked before it is believed."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data, self._position = memoryview(data), 0

    def take(self, count: int) -> memoryview:
        if count > len(self._data) - self._position:
            raise ValueError(f"NDList ends early: {count} bytes wanted at offset {self._position} of {len(self._data)}")
        self._position += count
        return self._data[self._position - count : self._position]

    def unpack(self, layout: str) -> Sequence[Any]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def count(self, what: str) -> int:
        (value,) = self.unpack(">i")
        if value < 0:
            raise ValueError(f"NDList claims {value} {what}s at offset {self._position - 4}")
        return int(value)

    def string(self) -> str:
        (length,) = self.unpack(">h")
        if length < 0:
            raise ValueError(f"NDList claims a string of {length} bytes at offset {self._position - 2}")
        return str(bytes(self.take(length)), "utf-8")


def _string(value: str) -> bytes:
    encoded = value.encode("utf-8")
    return struct.pack(">h", len(encoded)) + encoded
