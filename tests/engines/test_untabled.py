"""Models without a table over several ranks: those that DeepSpeed's parser would get wrong are refused at the load."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from bloomery.engines import untabled
from bloomery.errors import UnsupportedModelError

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


def model_of(model_type: str, device: str = "meta", **options: Any) -> Any:
    config = transformers.AutoConfig.for_model(model_type, **SMALL, **options)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("model_type", "options", "named"),
    [
        ("olmo2", {}, "self_attn.q_norm.weight"),
        ("cohere", {"use_qk_norm": True}, "self_attn.q_norm.weight"),
        ("stablelm", {"qk_layernorm": True}, "self_attn.k_layernorm.norms.0.weight"),
    ],
)
def test_a_norm_of_every_head_is_refused(model_type: str, options: dict[str, Any], named: str) -> None:
    model = model_of(model_type, **options)
    with pytest.raises(UnsupportedModelError, match=rf"{model_type} keeps weights of all heads .*{named}"):
        untabled.check_blocks(model.config, {"model.layers.0": model.model.layers[0]})


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("cohere", {}),
        ("stablelm", {}),
        ("phi", {"qk_layernorm": True}),
        ("gemma3_text", {"head_dim": 16}),
        ("apertus", {}),
    ],
)
def test_what_all_heads_share_is_right_on_every_rank(model_type: str, options: dict[str, Any]) -> None:
    model = model_of(model_type, **options)
    untabled.check_blocks(model.config, {"model.layers.0": model.model.layers[0]})


def test_layers_cut_in_two_ways_are_refused_at_the_load() -> None:
    model = model_of("cohere", device="cpu")
    untabled.try_out(model)
    model.model.layers[0].self_attn.o_proj = nn.Linear(16, 32)
    with pytest.raises(UnsupportedModelError, match=r"cohere does not compute as DeepSpeed splits it .*Python engine"):
        untabled.try_out(model)
