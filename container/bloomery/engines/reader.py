"""Read parts of a checkpoint's tensors: safetensors (one file or an index), ``.bin`` files, DeepSpeed's split ones.

Nothing is held: tensors are views of memory-mapped files, and what leaves is copied piece by piece, so that a rank's
own memory never holds a weight twice, nor the half of a weight that belongs to another rank.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from bloomery.checkpoints import safetensors_header
from bloomery.checkpoints.checkpoint import refusal
from bloomery.checkpoints.splitting.pickled import PickledFile
from bloomery.checkpoints.splitting.presharded import CONFIG, is_split
from bloomery.engines import presharded
from bloomery.engines.split_safetensors import Dequantised, StoredScales
from bloomery.errors import CheckpointError, ConfigurationError

log = logging.getLogger(__name__)

Range = tuple[int, int]
# What one copy may touch at once: bounds the temporary of a dtype cast, and the time between two progress reports.
CHUNK_BYTES = 8 << 20

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_FILES = ("model.safetensors", "pytorch_model.bin")


class Pending(Protocol):
    """Tensors that are being filled."""

    def wait(self) -> None:
        """Until they are full. Raises CheckpointError."""
        ...


class Reader(Protocol):
    """Fills tensors from a checkpoint. ``where``: what errors call it; ``ahead``: bytes that are worth asking for
    before the first of them are waited for, 0 when ``fill`` itself copies; ``scales``: of weights that are int8 in the
    file, by the address of what they were filled into."""

    where: str
    ahead: int
    scales: dict[int, StoredScales]

    def __contains__(self, name: str) -> bool: ...

    def fill(
        self,
        target: torch.Tensor,
        name: str,
        slices: Sequence[Range] | None = None,
        axis: int = 0,
        copied: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Copy the tensor (or its ``slices`` along ``axis``, joined) into ``target``, converting the dtype; it is full
        when what ``begin`` gives next has been waited for. ``copied`` hears the bytes of each piece as it lands.
        """
        ...

    def begin(self) -> Pending:
        """What ``fill`` was asked for since the last time."""
        ...

    def finish(self) -> None:
        """All is filled: check what can only be checked then. Raises CheckpointError."""
        ...

    def close(self, error: BaseException | None = None) -> None:
        """Let go of files and connections; ``error``: why the load is given up."""
        ...


class Done:
    """Nothing is left to wait for."""

    def wait(self) -> None:
        """At once."""


def share_of(
    where: str, name: str, shape: Sequence[int], held: Sequence[int], slices: Sequence[Range] | None, axis: int
) -> list[Range]:
    """The ranges along ``axis`` of a stored tensor of ``shape`` that fill one of shape ``held``.

    Raises CheckpointError when they do not.
    """
    ranges = list(slices) if slices is not None else [(0, shape[axis])] if shape else []
    expected = list(shape)
    if shape:
        expected[axis] = sum(stop - start for start, stop in ranges)
    if list(held) != expected:
        raise CheckpointError(
            f"{name} of {where} has shape {list(shape)}; this rank's share of it is {expected}, "
            f"but the model holds {list(held)}: config.json does not describe these weights"
        )
    for start, stop in ranges:
        if not 0 <= start <= stop <= shape[axis]:
            raise CheckpointError(f"rows {start} to {stop} of {name} lie outside its shape {list(shape)}")
    return ranges


def check_numbers(where: str, name: str, stored: torch.dtype, held: torch.dtype) -> None:
    """Raise a CheckpointError when what is stored are codes of a quantised weight: whatever a copy would make numbers
    of, they lack their scales, and a model filled with them answers nonsense."""
    are_codes = not stored.is_floating_point or stored.itemsize == 1
    if not are_codes or not held.is_floating_point or held.itemsize == 1:
        return
    raise CheckpointError(
        f"{name} of {where} is stored as {str(stored).removeprefix('torch.')}, and the model holds "
        f"{str(held).removeprefix('torch.')}: the checkpoint is quantised, in a way that this engine does not read; "
        "use the checkpoint that it was made from (with option.dtype=int8 if memory is short)"
    )


class CheckpointReader:
    """The tensors of one checkpoint directory, by name.

    ``rename`` maps a name in the files to the name that the model uses, or to None for a tensor nobody wants.
    """

    def __init__(
        self, path: str | Path, rename: Callable[[str], str | None] | None = None, *, allow_pickle: bool = True
    ) -> None:
        self.path = Path(path)
        self.where, self.ahead = str(path), 0
        self._allow_pickle = allow_pickle
        self._handles: dict[Path, Any] = {}
        self._where: dict[str, tuple[Path, str]] = {}  # model name -> file, name in the file
        self.scales: dict[int, StoredScales] = {}
        stored: dict[str, Path] = {}
        for file, names in _files(self.path, self._open):
            for name in names:
                if name in stored:
                    raise CheckpointError(f"{path} holds {name} twice: in {stored[name].name} and in {file.name}")
                stored[name] = file
                wanted = rename(name) if rename else name
                if wanted is not None:
                    self._where[wanted] = (file, name)

    def names(self) -> list[str]:
        """Every tensor's name."""
        return list(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        return tuple(int(size) for size in self._view(name).get_shape())

    def get(
        self, name: str, slices: Sequence[Range] | None = None, axis: int = 0, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """A new tensor: the whole one, or its ``slices`` along ``axis`` joined; ``dtype``: the file's by default."""
        shape = list(self.shape(name))
        if slices is not None:
            shape[axis] = sum(stop - start for start, stop in slices)
        if dtype is None:
            dtype = _piece(self._view(name), [slice(0, 0)] * len(shape)).dtype if shape else self._view(name)[...].dtype
        tensor = torch.empty(shape, dtype=dtype)
        self.fill(tensor, name, slices, axis)
        return tensor

    def fill(
        self,
        target: torch.Tensor,
        name: str,
        slices: Sequence[Range] | None = None,
        axis: int = 0,
        copied: Callable[[int], object] = lambda count: None,
    ) -> None:
        """As ``Reader``; at once."""
        view, shape = self._view(name), self.shape(name)
        ranges = share_of(self.where, name, shape, target.shape, slices, axis)
        if not shape:
            self._copy(target, view[...], name)
            return
        if isinstance(view, Dequantised):
            self.scales[target.data_ptr()] = view.scales(ranges if axis == view.axis else [(0, shape[view.axis])])
        offset = 0
        for start, stop in ranges:
            part = target.narrow(axis, offset, stop - start)
            offset += stop - start
            for rows in _chunks(part):
                index = [slice(0, size) for size in shape]
                index[axis] = slice(start, stop)
                low = index[0].start
                index[0] = slice(low + rows.start, low + rows.stop)
                piece = part[rows]
                self._copy(piece, _piece(view, index), name)
                copied(piece.numel() * piece.element_size())

    def begin(self) -> Pending:
        """As ``Reader``."""
        return Done()

    def finish(self) -> None:
        """As ``Reader``."""

    def close(self, error: BaseException | None = None) -> None:
        """As ``Reader``."""
        self._handles.clear()

    def _copy(self, target: torch.Tensor, values: torch.Tensor, name: str) -> None:
        check_numbers(self.where, name, values.dtype, target.dtype)
        with torch.no_grad():
            target.copy_(values)

    def _view(self, name: str) -> Any:
        if name not in self._where:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}; it has {len(self._where)} others")
        file, stored = self._where[name]
        handle = self._open(file)
        try:
            return handle.get_slice(stored)
        except SafetensorError as error:
            raise CheckpointError(f"{file} lacks {stored}, which the index says it holds: fetch it again") from error

    def _open(self, file: Path) -> Any:
        if file not in self._handles:
            if not self._allow_pickle and not (file.suffix == ".safetensors" or is_split(file.parent)):
                raise ConfigurationError(refusal(str(file)))
            self._handles[file] = open_tensors(file)
        return self._handles[file]


def open_tensors(file: Path) -> Any:
    """A lazily read file with ``keys()`` and ``get_slice(name)``."""
    try:
        if file.suffix == ".safetensors":
            return safe_open(file, framework="pt", device="cpu")
        return presharded.opened(file.parent) if file.name == CONFIG else PickledFile(file)
    except (CheckpointError, ConfigurationError):
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing: the download is incomplete, or the index is wrong") from error
    except Exception as error:
        if file.suffix == ".safetensors":
            safetensors_header.of_file(file)  # says more precisely what is wrong, if it is the header
        raise CheckpointError(f"{file} cannot be read as a checkpoint: {error}") from error


def _files(path: Path, open_file: Callable[[Path], Any]) -> Iterator[tuple[Path, Iterable[str]]]:
    """Each file of the checkpoint and the names it holds. Safetensors win over ``.bin``, both over split files."""
    for index, single in zip(_INDEXES, _FILES, strict=True):
        if (path / index).is_file():
            found = _from_index(path / index)
        elif (path / single).is_file():
            found = {path / single: list(open_file(path / single).keys())}
        else:
            continue
        if single.endswith(".bin"):
            log.warning(
                "%s: reading .bin files, which are slow and pickles; convert the checkpoint to safetensors with "
                "`bloomery shard SRC DST`",
                path,
            )
        yield from found.items()
        return
    if (path / CONFIG).is_file():
        yield path / CONFIG, open_file(path / CONFIG).keys()
        return
    loose = sorted(path.glob("*.safetensors"))
    if not loose:
        names = ", ".join(sorted(entry.name for entry in path.iterdir())[:20]) if path.is_dir() else "no such directory"
        raise CheckpointError(f"{path} holds no weights: expected one of {', '.join(_FILES + _INDEXES)}; found {names}")
    for file in loose:
        yield file, list(open_file(file).keys())


def _from_index(index: Path) -> dict[Path, list[str]]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        found: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            found.setdefault(index.parent / file, []).append(name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not a checkpoint index with a weight_map: {error}") from error
    return found


def _chunks(part: torch.Tensor) -> Iterator[slice]:
    """Pieces of the first axis, each of about CHUNK_BYTES."""
    rows = part.shape[0]
    row_bytes = max(1, part[:1].numel() * max(part.element_size(), 4))
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _piece(view: Any, index: list[slice]) -> torch.Tensor:
    piece: torch.Tensor = view[tuple(index)] if len(index) > 1 else view[index[0]]
    return piece
