"""The number formats of safetensors in numpy, which has no bf16: such tensors are held as their bits (uint16)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloomery.errors import CheckpointError, ConfigurationError

Array = NDArray[Any]

# What holds the bits of each format. The 8-bit floats are carried along and never converted.
HELD: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": "u1", "U8": "u1", "I8": "i1", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1",
        "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "<u2",
        "U32": "<u4", "I32": "<i4", "F32": "<f4",
        "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8",
    }.items()
}  # fmt: skip
CONVERTIBLE = ("F64", "F32", "F16", "BF16")
_BY_OPTION = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
DTYPE_OPTIONS = (*_BY_OPTION, "int8")
TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def named(option: str) -> str:
    """The format that ``--dtype fp16`` means."""
    if option not in _BY_OPTION:
        raise ConfigurationError(f"dtype={option!r} is not one of {', '.join(DTYPE_OPTIONS)}")
    return _BY_OPTION[option]


def itemsize(dtype: str, tensor: str) -> int:
    """Bytes of one number of ``dtype``, which ``tensor`` has."""
    if dtype not in HELD:
        raise CheckpointError(f"{tensor} is in {dtype}, which is none of {', '.join(HELD)}")
    return HELD[dtype].itemsize


def flat_bytes(values: Array) -> memoryview:
    """The memory of a contiguous array."""
    whole: Any = values.reshape(-1).view(np.uint8)
    return memoryview(whole)


def widened(values: Array, dtype: str) -> NDArray[np.float32]:
    """Numbers held as ``dtype`` in fp32: a new array unless they are that already."""
    if dtype == "BF16":
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32, copy=False)


def converted(values: Array, dtype: str, target: str, tensor: str) -> Array:
    """``values`` of ``tensor``, held as ``dtype``, held as ``target``: rounded to the nearest, ties to even.

    Raises CheckpointError when a finite number becomes infinite, which only a smaller range does.
    """
    if dtype == target:
        return values
    if dtype not in CONVERTIBLE or target not in CONVERTIBLE:
        raise CheckpointError(f"{tensor} is in {dtype}, which cannot be converted to {target}")
    wide = values if dtype == "F64" else widened(values, dtype)
    with np.errstate(over="ignore"):
        result: Array = _bf16_bits(wide.astype(np.float32)) if target == "BF16" else wide.astype(HELD[target])
        after = widened(result, target) if target == "BF16" else result
    overflowed = np.isinf(after) & np.isfinite(wide)
    if overflowed.any():
        largest = float(np.abs(wide[overflowed]).max())
        raise CheckpointError(f"{tensor} holds {largest:.4g}, more than {target} can: choose another dtype")
    return result


def _bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = values.view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)  # a NaN's rounded bits might mean a number
