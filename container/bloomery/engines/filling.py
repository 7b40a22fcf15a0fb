"""Fill a module's tensors from a checkpoint, with nothing forgotten."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from bloomery.checkpoints.progress import Progress
from bloomery.engines.reader import Pending, Range, Reader
from bloomery.errors import CheckpointError
from bloomery.processes import rank
from bloomery.sharding import WHOLE, Split

# An integer that no buffer of a model holds: what stands for NaN where there is none.
_POISON = -8_191_919


@dataclass
class Filling:
    """Tensors of a module that were asked for together: what each is filled from, and what there is to wait for."""

    sources: dict[str, tuple[torch.Tensor, str]]
    pending: Pending
    bytes: int


class Filler:
    """Fills a module's tensors unit by unit: each is poisoned, filled and looked at, and at the end none may be left.

    ``copy`` and ``copy_part`` say what belongs where, ``begin`` has it read, ``settle`` waits for it. A tensor is
    poisoned just before it is filled, not all at once at the start: DeepSpeed's empty tensors take no memory until they
    are first written.
    """

    def __init__(self, module: nn.Module, reader: Reader) -> None:
        self.module, self.reader = module, reader
        self._left: dict[str, torch.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._asked: dict[str, tuple[torch.Tensor, str]] = {}
        self.bytes = sum(self.unfilled().values())  # of this rank's share
        rank.current.report("loading weights")
        self._progress = Progress("loading weights", self.bytes)

    def copy(self, name: str, source: str, split: Split = WHOLE) -> None:
        """Fill the module's ``name`` with a part of the checkpoint's ``source``."""
        tensor = self._left.pop(name)
        poison(tensor)
        self._asked[name] = tensor, source
        ranges = None if split.axis is None else split.ranges
        self.reader.fill(tensor, source, ranges, split.axis or 0, self._progress.add)

    def copy_part(self, name: str, view: torch.Tensor, source: str, ranges: Sequence[Range] | None, axis: int) -> None:
        """Fill ``view``, a part of the module's ``name`` or another look at it, with ranges of ``source``, or all."""
        if name in self._left:
            self._asked[name] = self._left.pop(name), source
            poison(self._asked[name][0])
        self.reader.fill(view, source, ranges, axis, self._progress.add)

    def begin(self) -> Filling:
        """Read what was asked for since the last time."""
        size = sum(tensor.numel() * tensor.element_size() for tensor, _ in self._asked.values())
        filling, self._asked = Filling(self._asked, self.reader.begin(), size), {}
        return filling

    def settle(self, filling: Filling) -> None:
        """Wait until it is filled; raises when a part was forgotten, or is damaged. It may be repacked then."""
        filling.pending.wait()
        for name, (tensor, source) in filling.sources.items():
            if is_poisoned(tensor):
                raise CheckpointError(
                    f"{self.reader.where}: {source} holds NaN: the checkpoint is damaged, or it lacks a part of {name}"
                )
        filling.sources.clear()

    def set_buffer(self, name: str, value: torch.Tensor) -> None:
        """Put ``value`` in the place of a buffer, in its own precision: DeepSpeed casts buffers with the weights, and
        rotary frequencies in half precision turn far positions by the wrong angle."""
        parent, _, last = name.rpartition(".")
        self.module.get_submodule(parent)._buffers[last] = value.to(self._left.pop(name).device)

    def unfilled(self) -> dict[str, int]:
        """What nothing was copied into yet, and its bytes."""
        return {name: tensor.numel() * tensor.element_size() for name, tensor in self._left.items()}

    def check(self) -> None:
        """Raise when a tensor was forgotten."""
        self._refuse(list(self._left))
        self._progress.finish()

    def _refuse(self, forgotten: list[str]) -> None:
        if forgotten:
            raise CheckpointError(
                f"{self.reader.where} lacks weights of this {type(self.module).__name__}: {_some(forgotten)}. "
                "The checkpoint is incomplete, or its config.json describes another model"
            )


def filled_ahead(filler: Filler, units: Iterable[str], ask: Callable[[str], object]) -> Iterator[str]:
    """Each unit when it is full, while the reader is at those that follow. ``ask`` asks for a unit's tensors."""
    waiting: deque[tuple[str, Filling]] = deque()
    # What is on its way when a unit is repacked must not make the sum of all exceed what is there at the end.
    room = min(filler.reader.ahead, filler.bytes // 8)
    for unit in units:
        ask(unit)
        waiting.append((unit, filler.begin()))
        while waiting and sum(filling.bytes for _, filling in islice(waiting, 1, None)) >= room:
            yield _settled(filler, *waiting.popleft())
    while waiting:
        yield _settled(filler, *waiting.popleft())


def _settled(filler: Filler, unit: str, filling: Filling) -> str:
    filler.settle(filling)
    return unit


def poison(tensor: torch.Tensor) -> None:
    with torch.no_grad():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
        elif tensor.dtype in (torch.int32, torch.int64):
            tensor.fill_(_POISON)


def is_poisoned(tensor: torch.Tensor) -> bool:
    """Whether any element still is. Looked at in pieces: a mask of the whole would cost a quarter of its memory."""
    if not tensor.numel():
        return False
    if tensor.dim() == 2 and tensor.t().is_contiguous():  # row by row it would be read across its memory order
        tensor = tensor.t()
    pieces = torch.split(tensor.detach().flatten(), 1 << 20) if tensor.is_contiguous() else tensor.detach().unbind(0)
    if tensor.is_floating_point():
        return any(bool(piece.isnan().any()) for piece in pieces)
    return tensor.dtype in (torch.int32, torch.int64) and any(bool((piece == _POISON).any()) for piece in pieces)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@contextlib.contextmanager
def reading(reader: Reader) -> Iterator[Reader]:
    """``reader``, checked at the end and closed in any case."""
    try:
        yield reader
        reader.finish()
    except BaseException as error:
        reader.close(error)
        raise
    reader.close()
