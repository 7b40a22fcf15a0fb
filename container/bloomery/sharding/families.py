"""Which weight of which family is split how, as DeepSpeed's automatic tensor parallelism splits it.

A rule names modules by a regular expression on their full name. ``column``: rows of the weight (its outputs) and the
bias are split; ``row``: columns of the weight (its inputs) are split and the bias stays whole; ``head``: the output
projection onto the vocabulary, split like ``row`` but in grains; ``embedding``: a table with one column per head.
Everything that no rule names is whole on every rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bloomery.errors import UnsupportedModelError

Kind = Literal["column", "fused", "row", "head", "embedding"]


@dataclass(frozen=True)
class Family:
    """One architecture's rules, in the order of a block. ``conv1d``: weights are stored [in, out]."""

    name: str
    layers: str  # the prefix of a block, as a regular expression
    column: tuple[str, ...]
    row: tuple[str, ...]
    fused: tuple[str, ...] = ()  # query, key and value in one weight, interleaved per head
    concatenated: tuple[str, ...] = ()  # query, key and value in one weight, one after the other
    embedding: tuple[str, ...] = ()
    head: str | None = "lm_head"
    conv1d: bool = False
    encoder: bool = False  # gives logits for every position, generates nothing

    def kind(self, module: str) -> Kind | None:
        """How the weight of ``module`` is split; None: whole."""
        if self.head is not None and module == self.head:
            return "head"
        found = re.fullmatch(rf"{self.layers}\.(.+)", module)
        if not found:
            return None
        name = found.group(1)
        table: tuple[tuple[Kind, tuple[str, ...]], ...] = (
            ("fused", self.fused + self.concatenated),
            ("column", self.column),
            ("row", self.row),
            ("embedding", self.embedding),
        )
        return next((kind for kind, names in table if name in names), None)

    def known_as(self, stored: str) -> str | None:
        """The name by which the table knows a tensor of a file; None: it is whole on every rank. A base model is saved
        without its prefix (bigscience/bloom-560m begins with h.0), and GPT-NeoX's head is called embed_out in files."""
        prefix = self.layers.partition(r"\.")[0]
        module, _, field = stored.rpartition(".")
        for candidate in (module, f"{prefix}.{module}", module.replace("embed_out", "lm_head")):
            if self.kind(candidate):
                return f"{candidate}.{field}"
        return None


_QKV = ("q_proj", "k_proj", "v_proj")


def _under(parent: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for name in names)


def _llama_like(name: str) -> Family:
    return Family(
        name,
        layers=r"model\.layers\.\d+",
        column=(*_under("self_attn", _QKV), "mlp.gate_proj", "mlp.up_proj"),
        row=("self_attn.o_proj", "mlp.down_proj"),
    )


def _bert_like(name: str, prefix: str) -> Family:
    return Family(
        name,
        layers=rf"{prefix}\.encoder\.layer\.\d+",
        column=(*_under("attention.self", ("query", "key", "value")), "intermediate.dense"),
        row=("attention.output.dense", "output.dense"),
        head=None,
        encoder=True,
    )


_FAMILIES = (
    Family(
        "bloom",
        layers=r"transformer\.h\.\d+",
        fused=("self_attention.query_key_value",),
        column=("mlp.dense_h_to_4h",),
        row=("self_attention.dense", "mlp.dense_4h_to_h"),
    ),
    Family(
        "opt",
        layers=r"model\.decoder\.layers\.\d+",
        column=(*_under("self_attn", _QKV), "fc1"),
        row=("self_attn.out_proj", "fc2"),
    ),
    Family(
        "gpt2",
        layers=r"transformer\.h\.\d+",
        concatenated=("attn.c_attn",),
        column=("mlp.c_fc",),
        row=("attn.c_proj", "mlp.c_proj"),
        conv1d=True,
    ),
    Family(
        "gpt_neo",
        layers=r"transformer\.h\.\d+",
        column=(*_under("attn.attention", _QKV), "mlp.c_fc"),
        row=("attn.attention.out_proj", "mlp.c_proj"),
    ),
    Family(
        "gptj",
        layers=r"transformer\.h\.\d+",
        column=(*_under("attn", _QKV), "mlp.fc_in"),
        row=("attn.out_proj", "mlp.fc_out"),
    ),
    Family(
        "gpt_neox",
        layers=r"gpt_neox\.layers\.\d+",
        fused=("attention.query_key_value",),
        column=("mlp.dense_h_to_4h",),
        row=("attention.dense", "mlp.dense_4h_to_h"),
    ),
    _llama_like("llama"),
    _llama_like("mistral"),
    _llama_like("qwen2"),
    _llama_like("qwen3"),
    _bert_like("bert", "bert"),
    _bert_like("roberta", "roberta"),
    _bert_like("xlm-roberta", "roberta"),
    Family(
        "t5",
        layers=r"(?:encoder|decoder)\.block\.\d+\.layer\.\d+",
        column=(
            *_under("SelfAttention", ("q", "k", "v")),
            *_under("EncDecAttention", ("q", "k", "v")),
            *_under("DenseReluDense", ("wi", "wi_0", "wi_1")),
        ),
        row=("SelfAttention.o", "EncDecAttention.o", "DenseReluDense.wo"),
        embedding=("SelfAttention.relative_attention_bias",),
    ),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _FAMILIES}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a model's config.json."""
    model_type = str(config.get("model_type", ""))
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"there is no tensor-parallel table for model_type {model_type!r}; known are {', '.join(FAMILIES)}. "
            "Load it with tensor_parallel=1, or name its row-parallel layers in injection_policy"
        )
    return FAMILIES[model_type]


def from_row_parallel(
    name: str, layers: str, linears: tuple[str, ...], row: tuple[str, ...], head: str | None
) -> Family:
    """A family from what an injection policy or DeepSpeed's own parser says: the linears whose names end in one of
    ``row`` are row-parallel, all the other ``linears`` of a block are column-parallel."""
    is_row = {linear for linear in linears if any(f".{linear}".endswith(f".{end.lstrip('.')}") for end in row)}
    return Family(
        name,
        layers=layers,
        column=tuple(linear for linear in linears if linear not in is_row),
        row=tuple(sorted(is_row)),
        head=head,
    )
