"""Read checkpoints that ``bloomery shard`` has split, for any number of ranks.

Tensors are shown as in the unsplit checkpoint, and nothing is joined until a piece of it is asked for: a rank that
wants just what its own files hold opens no other. Weights in int8 are shown as fp32; their scales are to be had too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from bloomery.checkpoints.splitting.presharded import INDEX, SCALE, Index, SplitTensor
from bloomery.errors import CheckpointError
from bloomery.sharding import Range


class Piece(Protocol):
    """A tensor, or what can be sliced like one."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, index: Any) -> torch.Tensor: ...


@dataclass(frozen=True)
class Joined:
    """Tensors one after the other along ``axis``, sliced without being joined first."""

    parts: tuple[Piece, ...]
    axis: int = 0

    def get_shape(self) -> list[int]:
        """Of the whole."""
        shape = list(self.parts[0].shape)
        shape[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return shape

    def __getitem__(self, index: Any) -> torch.Tensor:
        indices = list(index) if isinstance(index, tuple) else [index]
        start, stop, _ = indices[self.axis].indices(self.get_shape()[self.axis])
        pieces, position = [], 0
        for part in self.parts:
            size = part.shape[self.axis]
            low, high = max(start - position, 0), min(stop - position, size)
            position += size
            if low < high:
                indices[self.axis] = slice(low, high)
                pieces.append(part[tuple(indices)])
        if not pieces:
            indices[self.axis] = slice(0, 0)
            return self.parts[0][tuple(indices)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, self.axis)


@dataclass(frozen=True)
class StoredScales:
    """One scale per output channel of an int8 weight, fp32. ``relative_error``: of the whole weight, by its maker."""

    scales: torch.Tensor
    relative_error: float


@dataclass(frozen=True)
class Dequantised:
    """An int8 weight as fp32. ``axis``: of its output channels."""

    weight: Any  # Joined, or a slice of a file
    channel_scales: Any
    axis: int
    relative_error: float

    def get_shape(self) -> list[int]:
        """Of the whole."""
        shape: list[int] = self.weight.get_shape()
        return shape

    def __getitem__(self, index: Any) -> torch.Tensor:
        scales: torch.Tensor = self.channel_scales[index[self.axis]]
        whole: torch.Tensor = self.weight[index].float()
        return whole.mul_(scales if self.axis == 1 else scales[:, None])

    def scales(self, channels: Sequence[Range]) -> StoredScales:
        """Of these output channels, one range after the other."""
        return StoredScales(
            torch.cat([self.channel_scales[start:stop] for start, stop in channels]), self.relative_error
        )


class SplitSafetensors:
    """All files of such a directory, with the face of one safetensors file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._index = Index.from_json((directory / INDEX).read_bytes(), directory / INDEX)
        self._files: dict[str, Any] = {}

    def keys(self) -> list[str]:
        """Names as in the unsplit checkpoint."""
        tensors = self._index.tensors
        return [name for name in tensors if not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors)]

    def get_slice(self, name: str) -> Any:
        """As safetensors'."""
        tensor = self._index.tensors[name]
        whole = self._whole(name, tensor)
        if tensor.int8 is None:
            return whole
        scales = self._whole(name + SCALE, self._index.tensors[name + SCALE])
        return Dequantised(whole, scales, tensor.int8.axis, tensor.int8.relative_rms)

    def _whole(self, name: str, tensor: SplitTensor) -> Any:
        if tensor.axis is None:
            return self.stored(tensor.parts[0].file, name, tensor.shape)
        pieces = []
        for part in tensor.parts:
            held = list(tensor.shape)
            held[tensor.axis] = sum(stop - start for start, stop in part.ranges)
            position = 0
            for start, stop in part.ranges:
                stretch = _Stretch(self, part.file, name, tuple(held), tensor.axis, position, stop - start)
                pieces.append((start, stretch))
                position += stop - start
        return Joined(tuple(stretch for _, stretch in sorted(pieces, key=lambda piece: piece[0])), tensor.axis)

    def stored(self, file: str, name: str, shape: tuple[int, ...]) -> Any:
        """A slice of a file's tensor, which has this shape."""
        path = self._directory / file
        try:
            if file not in self._files:
                self._files[file] = safe_open(path, framework="pt", device="cpu")
            found = self._files[file].get_slice(name)
        except Exception as error:  # safetensors raises its own, and FileNotFoundError
            raise CheckpointError(f"{path} cannot be read ({error}): fetch the checkpoint again") from error
        if tuple(found.get_shape()) != shape:
            raise CheckpointError(f"{path} holds {name} as {found.get_shape()}, and {INDEX} says {list(shape)}")
        return found


@dataclass(frozen=True)
class _Stretch:
    """A range along ``axis`` of what a file holds of a tensor; the file is opened when a piece is asked for."""

    files: SplitSafetensors
    file: str
    name: str
    held: tuple[int, ...]
    axis: int
    start: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.held[: self.axis], self.length, *self.held[self.axis + 1 :])

    def __getitem__(self, index: Any) -> torch.Tensor:
        indices = list(index) if isinstance(index, tuple) else [index]
        low, high, _ = indices[self.axis].indices(self.length)
        indices[self.axis] = slice(self.start + low, self.start + high)
        stored = self.files.stored(self.file, self.name, self.held)
        piece: torch.Tensor = stored[tuple(indices)]
        return piece
