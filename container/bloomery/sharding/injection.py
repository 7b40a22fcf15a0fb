"""What DeepSpeed's kernel injection is right for, family by family, and the refusals in words for the rest.

DeepSpeed fixes many things that a config may vary (the MLP's width, the residual's shape, the attention's scale)
and ignores the config's word silently, so every such field is checked before a layer is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.errors import UnsupportedModelError

AUTO_TP = "load it with kernel_inject=False: automatic tensor parallelism (AutoTP) serves it"
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
PLAIN = "load it with the accelerate engine, or with kernel_inject=False and one rank"


@dataclass(frozen=True)
class InjectedFamily:
    """How one architecture's decoder layer is called, stored in checkpoints, and what its config must say."""

    decoder_layer: str
    """transformers' class that DeepSpeed replaces."""
    returns_tuple: bool
    """Whether transformers' decoder loop takes ``(hidden states, attention weights)`` from a layer or the tensor."""
    layers: str
    """Where the layers live in the model."""
    query_key_value: tuple[str, ...]
    """The projection(s), relative to a layer: one fused module, or query, key and value."""
    attention_out: str
    mlp_in: str
    mlp_out: str
    input_norm: str
    mlp_norm: str | None
    """None: the MLP reads the attention's norm (GPT-J)."""
    activation: str | None
    """The config's field with the activation's name; None: the tanh approximation of GELU."""
    heads: str
    activations: tuple[str, ...] = GELU
    """What DeepSpeed's MLP knows (its CUDA kernels take the tanh approximation for every GELU)."""
    mlp_width: tuple[str, ...] = ()
    """The config's field with the MLP's width: DeepSpeed always makes four times the hidden size."""
    input_by_output: bool = False
    """Weights are stored [input, output] (GPT-2's Conv1D) and not [output, input]."""
    interleaved_heads: bool = False
    """The fused projection holds query, key and value head by head."""
    required: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that DeepSpeed ignores, with the one value it computes for."""
    otherwise: str = AUTO_TP
    """What to do with a model of the family that injection would compute wrongly."""


FAMILIES: dict[str, InjectedFamily] = {
    "opt": InjectedFamily(
        decoder_layer="OPTDecoderLayer",
        returns_tuple=False,
        layers="model.decoder.layers",
        query_key_value=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_out="self_attn.out_proj",
        mlp_in="fc1",
        mlp_out="fc2",
        input_norm="self_attn_layer_norm",
        mlp_norm="final_layer_norm",
        activation="activation_function",
        activations=("relu", "gelu", "gelu_new"),
        heads="num_attention_heads",
        mlp_width=("ffn_dim",),
        # DeepSpeed's OPT policy is written for norms before attention and MLP, whatever the config says.
        required={"do_layer_norm_before": True, "enable_bias": True, "layer_norm_elementwise_affine": True},
    ),
    "bloom": InjectedFamily(
        decoder_layer="BloomBlock",
        returns_tuple=True,
        layers="transformer.h",
        query_key_value=("self_attention.query_key_value",),
        attention_out="self_attention.dense",
        mlp_in="mlp.dense_h_to_4h",
        mlp_out="mlp.dense_4h_to_h",
        input_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        activation=None,
        heads="n_head",
        interleaved_heads=True,
        required={"apply_residual_connection_post_layernorm": False},
    ),
    "gpt2": InjectedFamily(
        decoder_layer="GPT2Block",
        returns_tuple=False,
        layers="transformer.h",
        query_key_value=("attn.c_attn",),
        attention_out="attn.c_proj",
        mlp_in="mlp.c_fc",
        mlp_out="mlp.c_proj",
        input_norm="ln_1",
        mlp_norm="ln_2",
        activation="activation_function",
        heads="n_head",
        mlp_width=("n_inner",),
        input_by_output=True,
        required={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        otherwise=PLAIN,  # AutoTP refuses GPT-2, whose projections are fused Conv1D modules
    ),
    "gpt_neo": InjectedFamily(
        decoder_layer="GPTNeoBlock",
        returns_tuple=True,
        layers="transformer.h",
        query_key_value=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        attention_out="attn.attention.out_proj",
        mlp_in="mlp.c_fc",
        mlp_out="mlp.c_proj",
        input_norm="ln_1",
        mlp_norm="ln_2",
        activation="activation_function",
        heads="num_heads",
        mlp_width=("intermediate_size",),
    ),
    "gptj": InjectedFamily(
        decoder_layer="GPTJBlock",
        returns_tuple=True,
        layers="transformer.h",
        query_key_value=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        attention_out="attn.out_proj",
        mlp_in="mlp.fc_in",
        mlp_out="mlp.fc_out",
        input_norm="ln_1",
        mlp_norm=None,
        activation="activation_function",
        heads="n_head",
        mlp_width=("n_inner",),
    ),
    "gpt_neox": InjectedFamily(
        decoder_layer="GPTNeoXLayer",
        returns_tuple=False,
        layers="gpt_neox.layers",
        query_key_value=("attention.query_key_value",),
        attention_out="attention.dense",
        mlp_in="mlp.dense_h_to_4h",
        mlp_out="mlp.dense_4h_to_h",
        input_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        activation="hidden_act",
        heads="num_attention_heads",
        mlp_width=("intermediate_size",),
        interleaved_heads=True,
        required={"use_parallel_residual": True, "attention_bias": True},
    ),
}


def family_of(config: Any) -> InjectedFamily:
    """The family of a transformers config, or a refusal that says what serves the model instead."""
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        raise UnsupportedModelError(
            f"kernel injection is not available for model type {config.model_type!r} "
            f"(it is for {', '.join(sorted(FAMILIES))}); {AUTO_TP}"
        ) from None


def check_injectable(config: Any, tensor_parallel: int) -> InjectedFamily:
    """The family, when DeepSpeed's injected layers compute what this config says."""
    family = family_of(config)

    def refuse(what: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"kernel injection would compute this {config.model_type} model wrongly: {what}; {family.otherwise}"
        )

    for name, value in family.required.items():
        found = getattr(config, name, value)
        if found != value:
            extra = ""
            if name == "do_layer_norm_before":
                extra = " (the norms come after attention and MLP, as in opt-350m)"
            raise refuse(f"{name} is {found!r}{extra}, DeepSpeed's layer has {value!r}")
    for name in family.mlp_width:
        width = getattr(config, name, None)
        if width is not None and width != 4 * config.hidden_size:
            raise refuse(f"{name} is {width}, DeepSpeed's layer is 4 x hidden size = {4 * config.hidden_size}")
    activation = getattr(config, family.activation) if family.activation else GELU[0]
    if activation not in family.activations:
        raise refuse(f"{family.activation} is {activation!r}, DeepSpeed's layer knows {', '.join(family.activations)}")
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type == "gpt_neox" and rope.get("rope_type", "default") != "default":
        raise refuse(f"rope_type is {rope['rope_type']!r}, DeepSpeed's layer has only the default rotary embedding")
    heads = getattr(config, family.heads)
    if heads % tensor_parallel:
        raise UnsupportedModelError(
            f"tensor_parallel={tensor_parallel} does not divide the {heads} attention heads of this "
            f"{config.model_type} model; choose a divisor of {heads}"
        )
    return family
