"""A safetensors file of any size, without torch."""

from __future__ import annotations

import json
import random


def safetensors_bytes(size: int, seed: int = 0) -> bytes:
    """A valid file of ``size`` bytes (at least 100) with one tensor of noise."""
    header = {"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    length = len(json.dumps(header)) + 8  # padded: the numbers below are shorter
    left = size - 8 - length
    header["weight"] |= {"shape": [left], "data_offsets": [0, left]}
    return (
        length.to_bytes(8, "little") + json.dumps(header).encode().ljust(length) + random.Random(seed).randbytes(left)
    )
