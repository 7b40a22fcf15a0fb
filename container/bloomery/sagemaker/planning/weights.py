"""Bytes of weights that each rank holds, by sharding's own tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from bloomery.errors import UnsupportedModelError
from bloomery.sagemaker.planning.facts import CheckpointFacts
from bloomery.sagemaker.planning.form import Form
from bloomery.sharding import FAMILIES, WHOLE, Family, Heads, Split, check_heads, split

_QUANTISED = ("column", "fused", "row")
_SCALE_BYTES = 2  # bf16, one per output that the rank has (engines/kernels.py)
_EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight", "embed_in.weight", "shared.weight")


@dataclass(frozen=True)
class RankWeights:
    """Bytes of one rank: ``whole`` is on every rank alike, ``part`` is its own share. ``head_copy``: its part of a tied
    output head, which automatic tensor parallelism cuts off the embedding. ``scales``: of int8 weights."""

    whole: int
    part: int
    head_copy: int
    scales: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.whole + self.part + self.head_copy + self.scales


def fitting_degrees(facts: CheckpointFacts, form: Form, most: int) -> list[int]:
    """The degrees of tensor parallelism up to ``most`` that cut through no head; 1 alone where there is no table."""
    if facts.model_type not in FAMILIES or _is_whole_without_injection(facts, form):
        return [1]
    heads = Heads.of(facts.config)
    return [n for n in range(1, most + 1) if heads.query % n == 0 and heads.key_value % n == 0]


def check_degree(facts: CheckpointFacts, form: Form, ranks: int) -> None:
    """Raise UnsupportedModelError, which says what works, for a degree that this model cannot have."""
    if ranks == 1:
        return
    if facts.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"tensor_parallel={ranks}: there is no table of how a {facts.model_type or 'nameless'} model is split, so "
            "nothing can be said of its ranks; plan with --tensor-parallel 1"
        )
    if _is_whole_without_injection(facts, form):
        raise UnsupportedModelError(
            f"tensor_parallel={ranks}: {facts.model_type} is split by kernel injection only, which has no int8; give "
            "another --dtype and no --no-kernel-inject, or --tensor-parallel 1"
        )
    check_heads(facts.config, ranks)


def _is_whole_without_injection(facts: CheckpointFacts, form: Form) -> bool:
    """DeepSpeed's automatic tensor parallelism refuses GPT-2, whose projections are fused Conv1D modules."""
    return facts.model_type == "gpt2" and not form.injected


def rank_weights(facts: CheckpointFacts, form: Form, ranks: int) -> tuple[RankWeights, ...]:
    """What each of ``ranks`` holds. Raises UnsupportedModelError."""
    check_degree(facts, form, ranks)
    family = FAMILIES.get(facts.model_type)
    if family is None:
        return (RankWeights(facts.parameters * form.itemsize, 0, 0, 0),)
    heads = Heads.of(facts.config) if ranks > 1 else Heads(1, 1)
    groups = _groups(facts, family)
    return tuple(_Rank(facts, family, heads, form, rank, ranks).weights(groups) for rank in range(ranks))


@dataclass(frozen=True)
class _Group:
    """Tensors that are split alike, one of each layer. ``known``: the table's name of the first; None: whole."""

    known: str | None
    kind: str | None
    shape: tuple[int, ...]
    count: int


def _groups(facts: CheckpointFacts, family: Family) -> list[_Group]:
    counted: dict[tuple[str | None, str | None, tuple[int, ...]], _Group] = {}
    for tensor in facts.tensors:
        known = family.known_as(tensor.name)
        kind = family.kind(known.rpartition(".")[0]) if known else None
        place = re.sub(r"\.\d+\.", ".*.", known) if known else None
        group = counted.get((place, kind, tensor.shape), _Group(known, kind, tensor.shape, 0))
        counted[place, kind, tensor.shape] = replace(group, count=group.count + 1)
    return list(counted.values())


@dataclass(frozen=True)
class _Rank:
    facts: CheckpointFacts
    family: Family
    heads: Heads
    form: Form
    rank: int
    ranks: int

    def weights(self, groups: Sequence[_Group]) -> RankWeights:
        whole = part = scales = 0
        for group in groups:
            piece = self._piece(group)
            shape = piece.shape(group.shape)
            int8 = self.form.int8 and group.kind in _QUANTISED and str(group.known).endswith(".weight")
            size = group.count * prod(shape) * (1 if int8 else self.form.itemsize)
            whole, part = (whole + size, part) if piece == WHOLE else (whole, part + size)
            scales += group.count * shape[1 if self.family.conv1d else 0] * _SCALE_BYTES if int8 else 0
        return RankWeights(whole, part, self._head_copy(), scales)

    def _piece(self, group: _Group) -> Split:
        if group.known is None or (self.form.injected and group.kind == "head"):
            return WHOLE
        return split(self.family, self.heads, group.known, group.shape, self.rank, self.ranks)

    def _head_copy(self) -> int:
        """Kernel injection leaves a tied head tied; automatic tensor parallelism gives each rank its columns of it."""
        if self.ranks == 1 or self.form.injected or not self.facts.tied or self.family.head is None:
            return 0
        table = next((tensor for tensor in self.facts.tensors if tensor.name.endswith(_EMBEDDINGS)), None)
        if table is None:
            return 0
        own = split(self.family, self.heads, f"{self.family.head}.weight", table.shape, self.rank, self.ranks)
        return prod(own.shape(table.shape)) * self.form.itemsize
