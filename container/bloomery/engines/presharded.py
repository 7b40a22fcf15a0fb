"""Read checkpoints that DeepSpeed wrote already split (``save_mp_checkpoint_path``), for any number of ranks.

Such a directory holds ds_inference_config.json, non-tp.pt (what is whole on every rank) and tp_<rank>_<part>.pt. Its
tensors have the names and the layout of DeepSpeed's injected layers, or, where automatic tensor parallelism wrote
them, those of transformers. Both are shown here under the names and in the shape of the unsplit checkpoint, so that
whatever loads can cut them anew; nothing is joined until a piece of it is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bloomery.checkpoints.splitting.pickled import load_tensors
from bloomery.checkpoints.splitting.presharded import CONFIG, is_split
from bloomery.engines.split_safetensors import Joined, SplitSafetensors
from bloomery.errors import CheckpointError
from bloomery.sharding import FAMILIES, Heads
from bloomery.sharding.injection import FAMILIES as INJECTED
from bloomery.sharding.injection import InjectedFamily

Tensors = Mapping[str, torch.Tensor]


def opened(directory: Path) -> PreshardedFile | SplitSafetensors:
    """The tensors of a split checkpoint, whoever wrote it. Raises CheckpointError."""
    return SplitSafetensors(directory) if is_split(directory) else PreshardedFile(directory)


class PreshardedFile:
    """All the files of such a directory, with the face of one safetensors file."""

    def __init__(self, directory: Path) -> None:
        described = _read(directory / CONFIG)
        base = directory if (directory / described.non_tp[0]).is_file() else Path(described.base_dir)
        whole = _merged([base / name for name in described.non_tp])
        shards = [
            _merged([base / name for name in described.tp if name.startswith(f"tp_{rank:02d}_")])
            for rank in range(described.ranks)
        ]
        if not all(shards):
            raise CheckpointError(f"{directory / CONFIG} names no tp_* files for some of its {described.ranks} ranks")
        self._tensors = {name: Joined((tensor,)) for name, tensor in whole.items()}
        self._tensors |= _unsplit(json.loads((directory / "config.json").read_text()), shards)

    def keys(self) -> list[str]:
        """Names as in the unsplit checkpoint."""
        return list(self._tensors)

    def get_slice(self, name: str) -> Joined:
        """As safetensors'."""
        return self._tensors[name]


@dataclass(frozen=True)
class _Described:
    base_dir: str
    non_tp: list[str]
    tp: list[str]
    ranks: int


def _read(file: Path) -> _Described:
    try:
        fields = json.loads(file.read_text())
        files = fields["checkpoints"]
        described = _Described(fields["base_dir"], list(files["non_tp"]), list(files["tp"]), int(fields["tp_size"]))
        dtype = fields.get("dtype")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} does not describe a split checkpoint ({error!r} is missing or wrong)") from error
    if dtype == "int8":
        raise CheckpointError(
            f"{file}: int8 weights as DeepSpeed packs them cannot be read; save fp16 and load as int8"
        )
    return described


def _merged(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    merged: dict[str, torch.Tensor] = {}
    for file in files:
        merged |= load_tensors(file)
    return merged


def _unsplit(config: Mapping[str, Any], shards: Sequence[Tensors]) -> dict[str, Joined]:
    injected = next((name for name in shards[0] if name.endswith(".attention.attn_qkvw")), None)
    if injected is None:
        return _by_table(config, shards)
    family = INJECTED.get(str(config.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"these weights are of DeepSpeed's injected layers, which {config.get('model_type')} has not"
        )
    layers = {match[1] for name in shards[0] if (match := re.match(r"(.*\.\d+)\.(?:attention|mlp|norm_[wb])", name))}
    # Which tensors are outside the layers DeepSpeed only knows for BLOOM; of other families all are in tp files.
    inside = tuple(f"{layer}." for layer in layers)
    found = {name: Joined((tensor,)) for name, tensor in shards[0].items() if not name.startswith(inside)}
    for layer in layers:
        found |= _Layer(family, Heads.of(config).query, layer, shards).tensors()
    return found


def _by_table(config: Mapping[str, Any], shards: Sequence[Tensors]) -> dict[str, Joined]:
    """Written by automatic tensor parallelism: transformers' names, each rank's share in order."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"there is no table of how {config.get('model_type')!r} was split; use its unsplit checkpoint"
        )
    found = {}
    for name in shards[0]:
        module, _, field = name.rpartition(".")
        kind = family.kind(module)
        if kind in ("column", "fused"):
            found[name] = Joined(tuple(shard[name] for shard in shards), 0)
        elif kind == "row" and field == "weight":
            found[name] = Joined(tuple(shard[name] for shard in shards), 1)
        else:
            found[name] = Joined((shards[0][name],))
    return found


@dataclass(frozen=True)
class _Layer:
    """One injected layer. DeepSpeed's matrices are [input, output]; on rank s of n they hold its heads' share."""

    family: InjectedFamily
    heads: int
    name: str
    shards: Sequence[Tensors]

    def tensors(self) -> dict[str, Joined]:
        family = self.family
        found = {
            **self._query_key_value(),
            f"{family.attention_out}.weight": self._matrix("attention.attn_ow", by_output=False),
            f"{family.mlp_in}.weight": self._matrix("mlp.inter_w"),
            f"{family.mlp_in}.bias": self._vector("mlp.inter_b", split=True),
            f"{family.mlp_out}.weight": self._matrix("mlp.output_w", by_output=False),
            f"{family.attention_out}.bias": self._vector("attention.attn_ob"),
            f"{family.mlp_out}.bias": self._vector("mlp.output_b"),
            f"{family.input_norm}.weight": self._vector("norm_w"),
            f"{family.input_norm}.bias": self._vector("norm_b"),
        }
        if family.mlp_norm:
            found[f"{family.mlp_norm}.weight"] = self._vector("mlp.attn_nw")
            found[f"{family.mlp_norm}.bias"] = self._vector("mlp.attn_nb")
        return {f"{self.name}.{name}": joined for name, joined in found.items() if joined is not None}

    def _each(self, name: str) -> list[torch.Tensor]:
        full = f"{self.name}.{name}"
        return [shard[full] for shard in self.shards if full in shard]

    def _vector(self, name: str, split: bool = False) -> Joined | None:
        found = self._each(name)
        return Joined(tuple(found if split else found[:1])) if found else None

    def _matrix(self, name: str, by_output: bool = True) -> Joined:
        straight = self.family.input_by_output
        axis = (1 if by_output else 0) if straight else (0 if by_output else 1)
        return Joined(tuple(tensor if straight else tensor.t() for tensor in self._each(name)), axis)

    def _query_key_value(self) -> dict[str, Joined]:
        weights, biases = self._each("attention.attn_qkvw"), self._each("attention.attn_qkvb")
        family = self.family
        straight, sources = family.input_by_output, family.query_key_value
        rows = [tensor if straight else tensor.t() for tensor in weights]
        axis = 1 if straight else 0
        found: dict[str, Joined] = {}
        for field, tensors, along in (("weight", rows, axis), ("bias", biases, 0)):
            if not tensors:
                continue
            parts = [tensor.tensor_split(3, along) for tensor in tensors]  # of each rank: query, key, value
            if len(sources) == 3:
                for index, source in enumerate(sources):
                    found[f"{source}.{field}"] = Joined(tuple(part[index] for part in parts), along)
            elif straight:
                pieces = [part[index] for index in range(3) for part in parts]
                found[f"{sources[0]}.{field}"] = Joined(tuple(pieces), along)
            elif family.decoder_layer == "BloomBlock":  # its rows stay head by head
                found[f"{sources[0]}.{field}"] = Joined(tuple(tensors), along)
            else:
                found[f"{sources[0]}.{field}"] = Joined(tuple(self._interleaved(parts)), along)
        return found

    def _interleaved(self, parts: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """GPT-NeoX: all queries, all keys, all values of a rank, back to query, key and value of one head at a time."""
        mine = self.heads // len(self.shards)
        return [
            piece[head * (len(piece) // mine) : (head + 1) * (len(piece) // mine)]
            for rank in parts
            for head in range(mine)
            for piece in rank
        ]
