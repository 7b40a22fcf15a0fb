"""Which files a split checkpoint has, and what lies where in them: known before a single weight is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from bloomery.checkpoints.splitting import presharded
from bloomery.checkpoints.splitting.number_formats import CONVERTIBLE, itemsize, named
from bloomery.checkpoints.splitting.presharded import SCALE, Index, Part, Rounding, SplitTensor
from bloomery.sharding import FAMILIES, WHOLE, Family, Heads, Split, check_heads, family_of, split

FILE_BYTES = 5_000_000_000
PLAIN_INDEX = "model.safetensors.index.json"
INDEXES = (PLAIN_INDEX, presharded.INDEX)
SCALES = "non-tp_scales.safetensors"
_QUANTISED = ("column", "fused", "row")


@dataclass(frozen=True)
class Stored:
    """A tensor of the source."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """What one file gets of a tensor."""

    split: Split
    shape: tuple[int, ...]
    file: str


@dataclass(frozen=True)
class Planned:
    """One tensor of the result. ``dtype``: what it is written in."""

    source: Stored
    dtype: str
    shares: tuple[Share, ...]

    @property
    def name(self) -> str:
        """The same as in the source."""
        return self.source.name


@dataclass
class File:
    """One safetensors file: its tensors in order, and where each lies behind the header."""

    tensors: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)  # name, dtype, shape
    data_bytes: int = 0

    def add(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Behind all others."""
        self.tensors.append((name, dtype, shape))
        self.data_bytes += _bytes(name, dtype, shape)

    def header(self) -> bytes:
        """Its first bytes, length included; padded so that the data begin at a multiple of 8."""
        fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, dtype, shape in self.tensors:
            stop = position + _bytes(name, dtype, shape)
            fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, stop]}
            position = stop
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header()) + self.data_bytes


@dataclass(frozen=True)
class Plan:
    """``tensors`` in the order in which they are to be read and written: every file then grows from front to back."""

    ranks: int
    dtype: str | None
    tensors: tuple[Planned, ...]
    files: Mapping[str, File]
    quantised: Mapping[str, bool]  # weights that become int8; True: stored [inputs, outputs]

    @property
    def plain(self) -> bool:
        """Whether the result is what transformers itself would have written."""
        return self.ranks == 1 and self.dtype != "int8"

    @property
    def source_bytes(self) -> int:
        """Bytes that are read."""
        return sum(_bytes(t.name, t.source.dtype, t.source.shape) for t in self.tensors)

    def index(self, rounded: Mapping[str, Rounding], made_from: str) -> dict[str, str]:
        """The files that say where the tensors are, by name; ``made_from``: a hash, by which they are known again."""
        if self.plain:
            total = sum(file.data_bytes for file in self.files.values())
            where = {planned.name: planned.shares[0].file for planned in self.tensors}
            text = json.dumps(
                {"metadata": {"total_size": total, "made_from": made_from}, "weight_map": where}, indent=1
            )
            return {PLAIN_INDEX: text + "\n"}
        found = {}
        for planned in self.tensors:
            axis = planned.shares[0].split.axis
            parts = tuple(Part(share.file, share.split.ranges) for share in planned.shares)
            found[planned.name] = SplitTensor(
                planned.dtype, planned.source.shape, axis, parts, rounded.get(planned.name)
            )
        for name, dtype, shape in self.files[SCALES].tensors if SCALES in self.files else ():
            found[name] = SplitTensor(dtype, shape, None, (Part(SCALES),))
        index = Index(self.ranks, self.dtype or "", found, made_from)
        return {presharded.INDEX: index.to_json(), presharded.CONFIG: presharded.deepspeed_config(index)}


def plan(
    stored: Sequence[Stored],
    config: Mapping[str, Any],
    ranks: int,
    dtype: str | None = None,
    file_bytes: int = FILE_BYTES,
) -> Plan:
    """How to split the tensors of a model with this config.json over ``ranks``.

    dtype: fp32, fp16, bf16, int8 (the linear layers that are split; everything else keeps its format), None: as stored.
    Raises UnsupportedModelError when the family has no table, or a head would be cut through.
    """
    splitter = _Splitter(config, ranks, needed=ranks > 1 or dtype == "int8")
    quantised = {
        tensor.name: splitter.transposed
        for tensor in stored
        if dtype == "int8" and tensor.dtype in CONVERTIBLE and splitter.is_linear(tensor)
    }

    def written(tensor: Stored) -> str:
        if tensor.name in quantised:
            return "I8"
        return named(dtype) if dtype and dtype != "int8" and tensor.dtype in CONVERTIBLE else tensor.dtype

    # Wide formats first: every tensor then begins at a multiple of its numbers' size, as readers that map files want.
    ordered = sorted(stored, key=lambda tensor: -itemsize(written(tensor), tensor.name))
    files = _Files(file_bytes)
    tensors = []
    for tensor in ordered:
        shares = []
        for rank, part in enumerate(splitter.parts(tensor)):
            shape = part.shape(tensor.shape)
            if part is WHOLE or prod(shape) > 0:  # a narrow head is cut in grains, and some ranks get none of it
                group = "non-tp" if part is WHOLE else f"tp_{rank:02d}"
                shares.append(Share(part, shape, files.place(group, tensor.name, written(tensor), shape)))
        tensors.append(Planned(tensor, written(tensor), tuple(shares)))
    if quantised:
        files.made[SCALES] = scales = File()
        for tensor in ordered:
            if tensor.name in quantised:
                scales.add(tensor.name + SCALE, "F32", (tensor.shape[1 if splitter.transposed else 0],))
    made = Plan(ranks, dtype, tuple(tensors), files.made, quantised)
    return _with_plain_names(made) if made.plain else made


class _Splitter:
    """A family's table, asked with the names that files have."""

    def __init__(self, config: Mapping[str, Any], ranks: int, needed: bool) -> None:
        self._ranks = ranks
        self._family: Family | None = family_of(config) if needed else FAMILIES.get(str(config.get("model_type")))
        if ranks > 1:
            check_heads(config, ranks)
        self._heads = Heads.of(config) if needed else Heads(1, 1)
        self.transposed = self._family is not None and self._family.conv1d

    def parts(self, tensor: Stored) -> list[Split]:
        """Of each rank; one, the whole, when it is not split."""
        name = self._family.known_as(tensor.name) if self._family else None
        if self._ranks == 1 or self._family is None or name is None or not prod(tensor.shape):
            return [WHOLE]
        found = [split(self._family, self._heads, name, tensor.shape, rank, self._ranks) for rank in range(self._ranks)]
        return [WHOLE] if found[0] == WHOLE else found

    def is_linear(self, tensor: Stored) -> bool:
        """Whether it is the weight of a linear layer that is split between ranks, output heads excepted."""
        name = self._family.known_as(tensor.name) if self._family else None
        if name is None or self._family is None or len(tensor.shape) != 2 or not name.endswith(".weight"):
            return False
        return self._family.kind(name.removesuffix(".weight")) in _QUANTISED


class _Files:
    """Fills files up to a size, one after the other in each group (a rank, or what all ranks have)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: dict[str, int] = {}
        self.made: dict[str, File] = {}

    def place(self, group: str, name: str, dtype: str, shape: tuple[int, ...]) -> str:
        """The file that the tensor goes to. One that is larger than the limit has a file of its own."""
        number = self._last.setdefault(group, 0)
        file = self.made.setdefault(f"{group}_{number:02d}.safetensors", File())
        if file.tensors and file.data_bytes + _bytes(name, dtype, shape) > self._limit:
            self._last[group] = number = number + 1
            file = self.made[f"{group}_{number:02d}.safetensors"] = File()
        file.add(name, dtype, shape)
        return f"{group}_{number:02d}.safetensors"


def _with_plain_names(made: Plan) -> Plan:
    """model.safetensors, or model-00001-of-00002.safetensors and so on."""
    count = len(made.files)
    new = {
        file: "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        for number, file in enumerate(made.files, 1)
    }
    tensors = tuple(
        replace(planned, shares=tuple(replace(share, file=new[share.file]) for share in planned.shares))
        for planned in made.tensors
    )
    return replace(made, tensors=tensors, files={new[file]: held for file, held in made.files.items()})


def _bytes(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    return prod(shape) * itemsize(dtype, name)
