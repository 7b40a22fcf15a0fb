"""Weight-only int8: per output channel, symmetric, with one scale each; in numpy.

A scale is kept as fp32 but chosen among the numbers of bf16, which is what the engine multiplies with, so that nothing
is rounded a second time when it loads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bloomery.checkpoints.splitting.number_formats import converted, widened
from bloomery.checkpoints.splitting.presharded import Rounding
from bloomery.errors import CheckpointError

LARGEST = 127


class Quantiser:
    """Rounds one weight [outputs, inputs], block of outputs by block of outputs; ``transposed``: it is stored
    [inputs, outputs], and must come in one block."""

    def __init__(self, tensor: str, transposed: bool = False) -> None:
        self._tensor, self._axis = tensor, 0 if transposed else 1  # along which one scale holds
        self._scales: list[NDArray[np.float32]] = []
        self._largest = self._squared = self._total = 0.0

    def quantise(self, block: NDArray[np.float32]) -> NDArray[np.int8]:
        """The block in int8. Raises CheckpointError when it holds NaN or infinity."""
        peak = np.maximum(block.max(axis=self._axis), -block.min(axis=self._axis))
        if not np.isfinite(peak).all():
            raise CheckpointError(f"{self._tensor} holds NaN or infinity: the checkpoint is damaged")
        scale = nearest_bf16(np.maximum(peak, 1e-20) / LARGEST)
        along = np.expand_dims(scale, self._axis)
        rounded = block / along
        np.rint(rounded, out=rounded)
        np.clip(rounded, -LARGEST, LARGEST, out=rounded)
        result = rounded.astype(np.int8)
        rounded *= along
        rounded -= block
        self._scales.append(scale)
        self._largest = max(self._largest, float(np.abs(rounded).max(initial=0)))
        self._squared += float(np.vdot(rounded, rounded))
        self._total += float(np.vdot(block, block))
        return result

    def scales(self) -> NDArray[np.float32]:
        """One per output, of all blocks so far."""
        return np.concatenate(self._scales)

    def rounding(self) -> Rounding:
        """Of all blocks so far."""
        return Rounding(1 - self._axis, self._largest, (self._squared / self._total) ** 0.5 if self._total else 0.0)


def nearest_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers that bf16 has. A scale that was rounded down clips the channel's largest weight by less than
    half a step, so that no weight is off by more than rounding may be."""
    return widened(converted(values.astype(np.float32), "F32", "BF16", "a scale"), "BF16")
