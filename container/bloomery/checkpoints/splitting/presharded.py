"""The layout of a checkpoint that ``bloomery shard`` has split: its index, and DeepSpeed's own description of it.

    ds_inference_config.json        the fields of DeepSpeed's (base_dir is relative, so the directory may be moved)
    presharded.index.json           every tensor: its whole shape, and which part of it is in which file
    non-tp_00.safetensors, …        what is whole on every rank
    tp_01_00.safetensors, …         rank 1's share
    non-tp_scales.safetensors       of int8 weights

Tensors keep the names of the unsplit checkpoint. A weight in int8 has its scales, one per output channel and whole, as
``<name>_scale``: they are the same for any number of ranks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bloomery.errors import CheckpointError
from bloomery.sharding import Range

CONFIG = "ds_inference_config.json"
INDEX = "presharded.index.json"
SCALE = "_scale"
_VERSION = 1
_OLD_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class Rounding:
    """One weight in int8: its outputs lie along ``axis``, and each has a scale. What that did to it: ``largest`` of
    |w - w'|, and ``relative_rms``, which is |w - w'| / |w| (Frobenius norms)."""

    axis: int
    largest: float
    relative_rms: float


@dataclass(frozen=True)
class Part:
    """What one file holds of a tensor: ``ranges`` along the tensor's axis, one after the other; none: all of it."""

    file: str
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True)
class SplitTensor:
    """``shape``: of the whole. ``axis`` None: ``parts`` is one file that holds it whole. ``int8``: how it was rounded,
    if it was."""

    dtype: str
    shape: tuple[int, ...]
    axis: int | None
    parts: tuple[Part, ...]
    int8: Rounding | None = None


@dataclass(frozen=True)
class Index:
    """presharded.index.json."""

    ranks: int
    dtype: str  # as asked for, "" when every tensor kept its own
    tensors: Mapping[str, SplitTensor]
    made_from: str = ""

    def to_json(self) -> str:
        """One line per tensor."""
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(_row(t))}" for name, t in self.tensors.items())
        head = f'"version": {_VERSION},\n "tensor_parallel": {self.ranks},\n "dtype": {json.dumps(self.dtype)}'
        head += f',\n "made_from": {json.dumps(self.made_from)}'
        return f'{{\n {head},\n "tensors": {{\n{lines}\n }}\n}}\n'

    @classmethod
    def from_json(cls, text: str | bytes, where: object) -> Index:
        """Raises CheckpointError, which names ``where``."""
        try:
            fields = json.loads(text)
            if fields["version"] != _VERSION:
                raise CheckpointError(f"{where} is of version {fields['version']!r}; this bloomery reads {_VERSION}")
            tensors = {name: _tensor(row) for name, row in fields["tensors"].items()}
            return cls(int(fields["tensor_parallel"]), str(fields["dtype"]), tensors, str(fields.get("made_from", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{where} is no index of a split checkpoint ({error!r})") from error


def is_split(directory: Path) -> bool:
    """Whether ``bloomery shard`` has written what is in the directory."""
    return (directory / INDEX).is_file()


def stored_dtype(directory: Path) -> str:
    """In what ``bloomery shard`` was asked to write it; "" for any other checkpoint. Raises CheckpointError."""
    file = directory / INDEX
    return Index.from_json(file.read_bytes(), file).dtype if file.is_file() else ""


def _row(tensor: SplitTensor) -> dict[str, Any]:
    row: dict[str, Any] = {"dtype": tensor.dtype, "shape": tensor.shape, "axis": tensor.axis}
    row["parts"] = {part.file: part.ranges for part in tensor.parts}
    if tensor.int8:
        row["int8"] = asdict(tensor.int8)
    return row


def _tensor(row: dict[str, Any]) -> SplitTensor:
    parts = []
    for file, ranges in row["parts"].items():
        if "/" in file or file.startswith("."):
            raise ValueError(f"{file!r} is no file beside the index")
        parts.append(Part(file, tuple((int(start), int(stop)) for start, stop in ranges)))
    shape, axis = tuple(int(size) for size in row["shape"]), row["axis"]
    if axis is None:
        if len(parts) != 1:
            raise ValueError(f"{len(parts)} files hold a whole tensor")
    else:
        covered = sorted(piece for part in parts for piece in part.ranges)
        ends = [0, *(stop for _, stop in covered)]
        if [start for start, _ in covered] != ends[:-1] or ends[-1] != shape[axis]:
            raise ValueError(f"parts {covered} do not make up {shape[axis]}")
    int8 = row.get("int8")
    return SplitTensor(row["dtype"], shape, axis, tuple(parts), Rounding(**int8) if int8 else None)


def deepspeed_config(index: Index) -> str:
    """ds_inference_config.json, as DeepSpeed's ``save_mp_checkpoint_path`` writes it."""
    files = sorted({part.file for tensor in index.tensors.values() for part in tensor.parts})
    dtypes = {tensor.dtype for tensor in index.tensors.values()}
    dtype = index.dtype or (_OLD_NAMES.get(dtypes.pop(), "") if len(dtypes) == 1 else "")
    described = {
        "type": "ds_model",
        "base_dir": "",
        "checkpoints": {
            "non_tp": [file for file in files if file.startswith("non-tp")],
            "tp": [file for file in files if file.startswith("tp_")],
        },
        "version": 1.0,
        "parallelization": "tp",
        "tp_size": index.ranks,
        "dtype": dtype,
    }
    return json.dumps(described, indent=1) + "\n"
