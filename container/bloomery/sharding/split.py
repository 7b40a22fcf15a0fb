"""This rank's part of a checkpoint tensor, as ranges along one axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.errors import UnsupportedModelError
from bloomery.sharding.families import Family, Kind

Range = tuple[int, int]
# DeepSpeed cuts what it need not cut at a head into multiples of this (config key tensor_parallel.tp_grain_size).
GRAIN = 64

_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
# In DeepSpeed's order: the first that is present decides the unit in which attention is cut.
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", *_HEADS)
# DeepSpeed cuts these in grains by their name, whatever the number of heads.
_IN_GRAINS = ("mlp", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


@dataclass(frozen=True)
class Split:
    """``axis`` None: the whole tensor on every rank."""

    axis: int | None = None
    ranges: tuple[Range, ...] = ()

    def shape(self, whole: Iterable[int]) -> tuple[int, ...]:
        """What this part of a tensor of shape ``whole`` measures."""
        sizes = list(whole)
        if self.axis is not None:
            sizes[self.axis] = sum(stop - start for start, stop in self.ranges)
        return tuple(sizes)


WHOLE = Split()


@dataclass(frozen=True)
class Heads:
    """The attention heads of a model, and those that share a key and a value."""

    query: int
    key_value: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Heads:
        """From config.json."""

        def first(names: tuple[str, ...]) -> int | None:
            return next((int(config[name]) for name in names if config.get(name) is not None), None)

        query, key_value = first(_HEADS), first(_KV_HEADS)
        if query is None or key_value is None:
            raise UnsupportedModelError(
                f"the config of model_type {config.get('model_type')!r} names no number of attention heads; "
                f"looked for {', '.join(_HEADS)}"
            )
        return cls(query, key_value)


def shard_sizes(total: int, ranks: int, kv_heads: int, module: str = "", grain: int = GRAIN) -> list[int]:
    """How DeepSpeed's automatic tensor parallelism divides ``total`` among ``ranks``.

    Whole key/value heads where that divides evenly and ``module`` is no MLP and no output projection, else grains;
    the last rank takes what is left of an incomplete grain.
    """
    if total % kv_heads == 0 and module not in ("lm_head", "embed_out") and not any(n in module for n in _IN_GRAINS):
        return [total // kv_heads * units for units in _spread(kv_heads, ranks)]
    if total < grain:
        return _spread(total, ranks)
    sizes = [units * grain for units in _spread(total // grain, ranks)]
    sizes[-1] += total % grain
    return sizes


def _spread(total: int, ranks: int) -> list[int]:
    return [total // ranks + (rank < total % ranks) for rank in range(ranks)]


def check_heads(config: Mapping[str, Any], ranks: int) -> None:
    """Refuse a degree that would cut through a head or leave a rank without one."""
    heads = Heads.of(config)
    fitting = [
        str(degree) for degree in range(1, heads.key_value + 1) if heads.key_value % degree == heads.query % degree == 0
    ]
    for what, count in (("attention heads", heads.query), ("key/value heads", heads.key_value)):
        if count % ranks:
            raise UnsupportedModelError(
                f"tensor_parallel={ranks} does not divide the {count} {what} of this {config.get('model_type')} model; "
                f"degrees that do: {', '.join(fitting)}"
            )


def split(
    family: Family, heads: Heads, tensor: str, shape: tuple[int, ...], rank: int, ranks: int, *, grain: int = GRAIN
) -> Split:
    """The part of ``tensor`` (a name and its whole shape in the checkpoint) that ``rank`` of ``ranks`` holds."""
    module, _, field = tensor.rpartition(".")
    kind = family.kind(module) if ranks > 1 else None
    axis = _axis(kind, field, family.conv1d)
    if kind is None or axis is None:
        return WHOLE
    # DeepSpeed decides by the last two parts of a module's name, and by no name at all for a fused projection.
    name = "" if kind == "fused" else module if kind == "head" else ".".join(module.split(".")[-2:])
    blocks = 3 if kind == "fused" and module.endswith(family.concatenated) else 1
    width = shape[axis] // blocks
    sizes = shard_sizes(width, ranks, heads.key_value, name, grain)
    start = sum(sizes[:rank])
    return Split(axis, tuple((block * width + start, block * width + start + sizes[rank]) for block in range(blocks)))


def _axis(kind: Kind | None, field: str, conv1d: bool) -> int | None:
    if kind is None or field not in ("weight", "bias"):
        return None
    if field == "bias":
        return 0 if kind in ("column", "fused") else None
    outputs = 1 if conv1d else 0
    if kind in ("head", "embedding"):
        return 1
    return outputs if kind in ("column", "fused") else 1 - outputs
