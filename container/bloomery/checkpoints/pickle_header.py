"""What tensors one of torch's own files (.bin) has, without torch and without the numbers: by a few ranged reads.

Such a file is a zip archive whose record data.pkl describes the tensors and whose other records hold their bytes. The
pickle is read with names for the few things that a state dictionary needs; whatever else it asks for is refused, so
nothing of it is ever run. The format: torch/serialization.py and torch/csrc/jit/serialization of PyTorch.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.errors import CheckpointError

_BUFFER = 64 << 10
_LONGEST = 64 << 20  # bytes of data.pkl; a thousand tensors take about 100 KB
# Safetensors' names of what torch calls a storage's class.
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}


@dataclass(frozen=True)
class PickledTensor:
    """``dtype``: safetensors' name of it. Tensors of one file with the same ``storage`` and shape share their bytes."""

    dtype: str
    shape: tuple[int, ...]
    storage: tuple[str, int]  # its record, and the first number


def read(read_range: Callable[[int, int], bytes], size: int, where: str) -> Mapping[str, PickledTensor]:
    """The tensors of a file of ``size`` bytes, of which ``read_range(start, length)`` gives parts.

    ``where`` names the file in errors. Raises CheckpointError.
    """
    try:
        with (
            io.BufferedReader(_Ranged(read_range, size), _BUFFER) as file,
            zipfile.ZipFile(file) as archive,
        ):
            record = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if record is None:
                raise _bad(where, "it is a zip archive without a data.pkl")
            if archive.getinfo(record).file_size > _LONGEST:
                raise _bad(where, f"its description alone has {archive.getinfo(record).file_size} bytes")
            content = archive.read(record)
    except zipfile.BadZipFile as error:
        raise _bad(where, "it is no zip archive; torch before 1.6 wrote files that have to be read whole") from error
    try:
        found = _Unpickler(io.BytesIO(content), where).load()
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        raise _bad(where, f"its description cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise _bad(where, "it holds no dictionary of tensors")
    return {str(name): value for name, value in found.items() if isinstance(value, PickledTensor)}


class _Ranged(io.RawIOBase):
    """A file that is read where it is."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range, self._size, self._position = read_range, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._size - self._position))
        view[:length] = self._read_range(self._position, length) if length else b""
        self._position += length
        return length


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file)
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the few names of a state dictionary."""
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if (module, name) not in known:
            raise _bad(self._where, f"it holds {module}.{name}, which is no part of a dictionary of tensors")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """A storage: ("storage", its class, its record, a device, how many numbers)."""
        return pid


def _tensor(storage: Any, offset: int, shape: tuple[int, ...], *_: Any) -> PickledTensor:
    kind, dtype, record = storage[:3]
    if kind != "storage" or not isinstance(dtype, str):
        raise ValueError(f"a tensor lies in {kind!r}")
    return PickledTensor(dtype, tuple(int(size) for size in shape), (str(record), int(offset)))


def _parameter(data: PickledTensor, *_: Any) -> PickledTensor:
    return data


def _bad(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where} does not say what tensors it has: {what}; convert the checkpoint with `bloomery shard`."
    )
