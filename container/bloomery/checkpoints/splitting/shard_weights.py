"""Weights on their way from one checkpoint to another: read ahead in blocks of rows, cut by
``sharding``'s tables, and each piece written to the end of its rank's file.

What is held at once is a few blocks, however large the model is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.splitting.number_formats import Array, converted, flat_bytes, itemsize, widened
from bloomery.checkpoints.splitting.output import Output, Summing
from bloomery.checkpoints.splitting.presharded import SCALE, Rounding
from bloomery.checkpoints.splitting.quantise import Quantiser
from bloomery.checkpoints.splitting.shard_plan import SCALES, Plan, Planned, Share
from bloomery.checkpoints.splitting.tensors import Rows, Tensors

BLOCK_BYTES = 8 << 20
_AHEAD_BYTES = 64 << 20
_COMPUTED = 1 << 18  # numbers


@dataclass(frozen=True)
class Block:
    """Rows ``start`` to ``stop`` of a tensor."""

    tensor: Planned
    start: int
    stop: int


@dataclass(frozen=True)
class Weights:
    """What was written: checksums of the files, and what int8 did to each weight."""

    files: Mapping[str, Listed]
    rounded: Mapping[str, Rounding]


def write_weights(plan: Plan, tensors: Tensors, output: Output, read: Callable[[int], None]) -> Weights:
    """Write every file of the plan into ``output``; ``read`` hears how many bytes of the source are done with."""
    writing = _Writing(plan, output)
    for block, rows in _read_ahead(plan, tensors):
        read(rows.nbytes)
        writing.add(block, rows)
    return writing.finish()


class _Writing:
    """The files that are open; each is closed as soon as its last tensor is in it."""

    def __init__(self, plan: Plan, output: Output) -> None:
        self._plan, self._output = plan, output
        self._open: dict[str, Summing] = {}
        self._left = {name: file.data_bytes for name, file in plan.files.items()}
        self._sums: dict[str, Listed] = {}
        self._quantisers: dict[str, Quantiser] = {}
        for name, left in self._left.items():
            if not left:  # only empty tensors
                self._write(name, memoryview(b""))

    def add(self, block: Block, rows: Array) -> None:
        for start, some in self._computed(block, rows):
            for share in block.tensor.shares:
                for piece in pieces(some, start, share):
                    self._write(share.file, flat_bytes(piece))

    def _computed(self, block: Block, rows: Array) -> Iterator[tuple[int, Array]]:
        """The rows as they are to be written, a few at a time: what rounding needs besides them stays in the cache."""
        name, stored, dtype = block.tensor.name, block.tensor.source.dtype, block.tensor.dtype
        quantiser = self._quantiser(name) if name in self._plan.quantised else None
        if self._plan.quantised.get(name) or not rows.ndim or (dtype == stored and quantiser is None):
            step = max(1, len(rows)) if rows.ndim else 1
        else:
            step = max(1, _COMPUTED * len(rows) // rows.size)
        for low in range(0, len(rows) if rows.ndim else 1, step):
            some = rows[low : low + step] if rows.ndim else rows
            if quantiser:
                yield block.start + low, quantiser.quantise(widened(some, stored))
            else:
                yield block.start + low, converted(some, stored, dtype, name)

    def finish(self) -> Weights:
        for name, _, _ in self._plan.files[SCALES].tensors if SCALES in self._plan.files else ():
            scales = self._quantisers[name.removesuffix(SCALE)].scales()
            self._write(SCALES, flat_bytes(scales))
        return Weights(self._sums, {name: quantiser.rounding() for name, quantiser in self._quantisers.items()})

    def _quantiser(self, name: str) -> Quantiser:
        if name not in self._quantisers:
            self._quantisers[name] = Quantiser(name, transposed=self._plan.quantised[name])
        return self._quantisers[name]

    def _write(self, name: str, data: memoryview) -> None:
        if name not in self._open:
            file = self._plan.files[name]
            self._open[name] = Summing(self._output.create(name, file.size))
            self._open[name].write(memoryview(file.header()))
        self._open[name].write(data)
        self._left[name] -= data.nbytes
        if not self._left[name]:
            self._sums[name] = self._open[name].close()


def pieces(rows: Array, first: int, share: Share) -> Iterator[Array]:
    """What of a block, whose first row is row ``first`` of the tensor, belongs to a share; contiguous, in order."""
    axis, ranges = share.split.axis, share.split.ranges
    if axis is None:
        yield rows
    elif axis == 0:
        for start, stop in ranges:
            low, high = max(start - first, 0), min(stop - first, len(rows))
            if low < high:
                yield rows[low:high]
    else:
        columns = [rows[:, start:stop] for start, stop in ranges]
        yield np.ascontiguousarray(columns[0]) if len(columns) == 1 else np.concatenate(columns, axis=1)


def _blocks(plan: Plan) -> Iterator[Block]:
    for tensor in plan.tensors:
        shape = tensor.source.shape
        if not prod(shape):
            continue
        rows = shape[0] if shape else 1
        row_bytes = prod(shape[1:]) * itemsize(tensor.source.dtype, tensor.name)
        # One scale per column needs the whole column.
        step = rows if plan.quantised.get(tensor.name) else max(1, BLOCK_BYTES // row_bytes)
        for start in range(0, rows, step):
            yield Block(tensor, start, min(rows, start + step))


def _read_ahead(plan: Plan, tensors: Tensors) -> Iterator[tuple[Block, Array]]:
    """The blocks in order, each with its rows; the next ones are read meanwhile."""
    ahead: deque[tuple[Block, Rows, int]] = deque()
    held = 0
    for block in _blocks(plan):
        shape = block.tensor.source.shape
        size = (block.stop - block.start) * prod(shape[1:]) * itemsize(block.tensor.source.dtype, block.tensor.name)
        while ahead and held + size > _AHEAD_BYTES:
            ready, rows, its_size = ahead.popleft()
            yield ready, rows.result()
            held -= its_size
        ahead.append((block, tensors.ask(block.tensor.name, block.start, block.stop), size))
        held += size
    while ahead:
        ready, rows, _ = ahead.popleft()
        yield ready, rows.result()
