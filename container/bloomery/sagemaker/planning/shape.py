"""The few numbers of a config.json that memory depends on, whatever a family calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.errors import UnsupportedModelError
from bloomery.sharding import FAMILIES, Heads

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model")
_INNER = ("intermediate_size", "ffn_dim", "n_inner", "d_ff")
_POSITIONS = ("max_position_embeddings", "n_positions")
_GATED = ("llama", "mistral", "qwen2", "qwen3")
# transformers 5 has no fused attention for them: the scores of a layer exist as a whole.
_EAGER = ("bloom", "gpt_neo", "gptj")


@dataclass(frozen=True)
class ModelShape:
    """``layers``: those that keep keys and values, 0 for an encoder. ``caches``: per layer, 2 where a decoder also
    keeps an encoder's. ``inner``: width of an MLP, twice where it has a gate. ``positions``: None without a limit.
    ``scores``: whether attention computes all scores of a layer at once."""

    layers: int
    caches: int
    heads: Heads
    head_size: int
    hidden: int
    inner: int
    vocabulary: int
    positions: int | None
    scores: bool


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Raises UnsupportedModelError for a config that lacks one of them."""
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    model_type = str(config.get("model_type", ""))

    def first(names: tuple[str, ...]) -> int | None:
        return next((text[name] for name in names if isinstance(text.get(name), int)), None)

    def needed(names: tuple[str, ...]) -> int:
        if value := first(names):
            return value
        raise UnsupportedModelError(
            f"config.json of model_type {model_type!r} has none of {', '.join(names)}: nothing can be said of the "
            "memory that requests take"
        )

    layers, hidden = needed(_LAYERS), needed(_HIDDEN)
    heads = Heads.of(text)
    if text.get("multi_query"):  # gpt_bigcode and the first Falcons say it so
        heads = Heads(heads.query, 1)
    family = FAMILIES.get(model_type)
    decoder_layers = first(("num_decoder_layers",)) or layers
    return ModelShape(
        layers=0 if family and family.encoder else decoder_layers,
        caches=2 if config.get("is_encoder_decoder") or model_type == "t5" else 1,
        heads=heads,
        head_size=first(("head_dim", "d_kv")) or hidden // heads.query,
        hidden=hidden,
        inner=(first(_INNER) or 4 * hidden) * (2 if model_type in _GATED else 1),
        vocabulary=needed(("vocab_size",)),
        positions=first(_POSITIONS),
        scores=model_type in _EAGER,
    )
