"""Where the bytes of a checkpoint's tensor go that a stream brings: into a torch tensor, all of them or some."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from bloomery.checkpoints.safetensors_header import TensorInfo
from bloomery.errors import CheckpointError

Range = tuple[int, int]
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorLanding:
    """``target`` gets the stored tensor's ``ranges`` along ``axis``, joined; its dtype, device and strides are its own.

    ``arrived`` hears how many of the target's bytes are in place.
    """

    def __init__(
        self,
        target: torch.Tensor,
        stored: TensorInfo,
        axis: int = 0,
        ranges: Sequence[Range] | None = None,
        copied: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Raises CheckpointError when the stored dtype is none of torch's."""
        if stored.dtype not in DTYPES:
            raise CheckpointError(f"{stored.name} is stored as {stored.dtype}, which this engine does not compute with")
        self._target, self._copied = target.detach(), copied
        self.dtype = DTYPES[stored.dtype]
        self._shape, self._axis = stored.shape, axis
        self._ranges = tuple(ranges) if ranges is not None else ((0, stored.shape[axis]),) if stored.shape else ()
        kept = self._target.numel() * self._target.element_size()
        self._share = kept / stored.length if stored.length else 0.0
        self._bytes = self._own_memory()

    @property
    def in_rows(self) -> bool:
        """Whether what is wanted lies in a few runs of the file: all of it, or ranges of the first axis."""
        return self._axis == 0 or self._ranges == ((0, self._shape[self._axis]),)

    def runs(self) -> Iterator[Range]:
        """First and last byte (exclusive) of each wanted run of the stored tensor, for tensors ``in_rows``."""
        row = math.prod(self._shape[1:]) * self.dtype.itemsize
        if not self._shape or self._axis:
            yield 0, math.prod(self._shape) * self.dtype.itemsize
            return
        for start, stop in self._ranges:
            yield start * row, stop * row

    def memory(self, position: int, length: int) -> memoryview | None:
        """As ``blocks.Landing``."""
        if self._bytes is None:
            return None
        passed = 0
        for start, stop in self.runs():
            if start <= position and position + length <= stop:
                place = passed + position - start
                return self._bytes[place : place + length]
            passed += stop - start
        return None

    def land(self, position: int, data: memoryview) -> None:
        """As ``blocks.Landing``."""
        values = torch.frombuffer(data, dtype=self.dtype)
        with torch.no_grad():
            if not self._shape:
                self._target.copy_(values[0])
            else:
                self._place(self._target, self._shape, self._axis, position // self.dtype.itemsize, values)

    def arrived(self, count: int) -> None:
        """As ``blocks.Landing``."""
        self._copied(round(count * self._share))

    def _own_memory(self) -> memoryview | None:
        target = self._target
        direct = target.device.type == "cpu" and target.dtype == self.dtype and target.is_contiguous() and self.in_rows
        return target.reshape(-1).view(torch.uint8).numpy().data if direct and target.numel() else None

    def _place(self, target: torch.Tensor, shape: Sequence[int], axis: int, first: int, values: torch.Tensor) -> None:
        """Copy ``values``, the elements from ``first`` on of a stored tensor of ``shape``, into ``target``.

        ``axis``: where the ranges apply; below 0 when an outer axis has applied them.
        """
        if not len(values):
            return
        row = math.prod(shape[1:])
        index, inside = divmod(first, row)
        if inside or len(values) < row:
            count = min(row - inside, len(values))
            for place in self._places(axis, index):
                self._place(target[place], shape[1:], axis - 1, inside, values[:count])
        else:
            count = len(values) // row * row
            self._place_rows(target, axis, index, values[:count].view(-1, *shape[1:]))
        self._place(target, shape, axis, first + count, values[count:])

    def _places(self, axis: int, index: int) -> Iterator[int]:
        """Where the stored row ``index`` is in the target: nowhere, when it is not in the ranges."""
        if axis:
            yield index
            return
        passed = 0
        for start, stop in self._ranges:
            if start <= index < stop:
                yield passed + index - start
            passed += stop - start

    def _place_rows(self, target: torch.Tensor, axis: int, index: int, rows: torch.Tensor) -> None:
        """Copy whole ``rows``, of which the first is the stored tensor's row ``index``."""
        if axis < 0:
            target[index : index + len(rows)].copy_(rows)
            return
        passed = 0
        for start, stop in self._ranges:
            if axis:
                width = stop - start
                target[index : index + len(rows)].narrow(axis, passed, width).copy_(rows.narrow(axis, start, width))
            else:
                low, high = max(start, index), min(stop, index + len(rows))
                if low < high:
                    target[passed + low - start : passed + high - start].copy_(rows[low - index : high - index])
            passed += stop - start


class Everywhere:
    """The same bytes in several tensors: an embedding that is whole on each rank, and its head's columns."""

    def __init__(self, landings: Sequence[TensorLanding]) -> None:
        self._landings = tuple(landings)

    def memory(self, position: int, length: int) -> memoryview | None:
        """As ``blocks.Landing``."""
        return None

    def land(self, position: int, data: memoryview) -> None:
        """As ``blocks.Landing``."""
        for landing in self._landings:
            landing.land(position, data)

    def arrived(self, count: int) -> None:
        """As ``blocks.Landing``."""
        for landing in self._landings:
            landing.arrived(count)
