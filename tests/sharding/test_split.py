"""Which part of which weight a rank holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bloomery.errors import UnsupportedModelError
from bloomery.sharding import (
    FAMILIES,
    WHOLE,
    Heads,
    check_heads,
    family_of,
    from_row_parallel,
    shard_sizes,
    split,
)

BLOOM = family_of({"model_type": "bloom"})
FOUR_HEADS = Heads(query=4, key_value=4)
QKV = "transformer.h.0.self_attention.query_key_value"


@pytest.mark.parametrize("total", [64, 96, 128, 176, 200, 1024, 11008])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("module", ["", "lm_head", "mlp.gate_proj", "mlp.c_fc", "self_attn.q_proj", "0.fc1"])
def test_sizes_are_deepspeeds_own(total: int, ranks: int, module: str) -> None:
    from deepspeed.module_inject.tp_shard import AutoTPMeta, get_shard_size_list

    theirs = get_shard_size_list(total, ranks, AutoTPMeta(num_kv_heads=4, tp_grain_size=64), module or None)

    assert shard_sizes(total, ranks, 4, module) == theirs


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_the_ranks_shares_of_every_split_weight_cover_it_exactly_once(family) -> None:
    prefix = {
        "bloom": "transformer.h.3", "opt": "model.decoder.layers.3", "gpt2": "transformer.h.3",
        "gpt_neo": "transformer.h.3", "gptj": "transformer.h.3", "gpt_neox": "gpt_neox.layers.3",
        "bert": "bert.encoder.layer.3", "roberta": "roberta.encoder.layer.3", "xlm-roberta": "roberta.encoder.layer.3",
        "t5": "decoder.block.3.layer.1",
    }.get(family.name, "model.layers.3")  # fmt: skip
    modules = [*family.column, *family.row, *family.fused, *family.concatenated, *family.embedding]
    for module in modules:
        shares = [split(family, FOUR_HEADS, f"{prefix}.{module}.weight", (384, 384), rank, 2) for rank in range(2)]
        covered = sorted(number for share in shares for start, stop in share.ranges for number in range(start, stop))
        assert shares[0].axis == shares[1].axis
        assert shares[0].axis is not None
        assert covered == list(range(384)), module


def test_a_column_parallel_layer_splits_outputs_and_bias() -> None:
    weight = split(BLOOM, FOUR_HEADS, "transformer.h.0.mlp.dense_h_to_4h.weight", (256, 64), 1, 2)
    bias = split(BLOOM, FOUR_HEADS, "transformer.h.0.mlp.dense_h_to_4h.bias", (256,), 1, 2)

    assert (weight.axis, weight.ranges) == (0, ((128, 256),))
    assert (bias.axis, bias.ranges) == (0, ((128, 256),))


def test_a_row_parallel_layer_splits_inputs_and_keeps_its_bias() -> None:
    weight = split(BLOOM, FOUR_HEADS, "transformer.h.0.mlp.dense_4h_to_h.weight", (64, 256), 0, 2)
    bias = split(BLOOM, FOUR_HEADS, "transformer.h.0.mlp.dense_4h_to_h.bias", (64,), 0, 2)

    assert (weight.axis, weight.ranges) == (1, ((0, 128),))
    assert bias == WHOLE


def test_bloom_keeps_query_key_and_value_of_a_head_together() -> None:
    assert split(BLOOM, FOUR_HEADS, f"{QKV}.weight", (192, 64), 1, 2).ranges == ((96, 192),)


def test_gpt2_takes_a_range_out_of_query_key_and_value_each_along_the_inner_axis() -> None:
    gpt2 = family_of({"model_type": "gpt2"})

    share = split(gpt2, FOUR_HEADS, "transformer.h.0.attn.c_attn.weight", (64, 192), 1, 2)

    assert (share.axis, share.ranges) == (1, ((32, 64), (96, 128), (160, 192)))
    assert share.shape((64, 192)) == (64, 96)


def test_the_head_is_split_on_its_inputs_in_grains() -> None:
    shares = [split(BLOOM, FOUR_HEADS, "lm_head.weight", (320, 192), rank, 2) for rank in range(2)]

    assert [(share.axis, share.ranges) for share in shares] == [(1, ((0, 128),)), (1, ((128, 192),))]


def test_a_narrow_head_is_whole_on_the_first_rank_and_empty_on_the_second() -> None:
    assert split(BLOOM, FOUR_HEADS, "lm_head.weight", (320, 64), 1, 2).shape((320, 64)) == (320, 0)


def test_embeddings_and_norms_are_whole_on_every_rank() -> None:
    assert split(BLOOM, FOUR_HEADS, "transformer.word_embeddings.weight", (320, 64), 1, 2) == WHOLE
    assert split(BLOOM, FOUR_HEADS, "transformer.h.0.input_layernorm.weight", (64,), 1, 2) == WHOLE


def test_one_rank_holds_everything() -> None:
    assert split(BLOOM, FOUR_HEADS, f"{QKV}.weight", (192, 64), 0, 1) == WHOLE


def test_grouped_queries_are_split_by_key_value_heads() -> None:
    llama = family_of({"model_type": "llama"})
    heads = Heads.of({"num_attention_heads": 8, "num_key_value_heads": 2})

    query = split(llama, heads, "model.layers.0.self_attn.q_proj.weight", (64, 64), 1, 2)
    key = split(llama, heads, "model.layers.0.self_attn.k_proj.weight", (16, 64), 1, 2)

    assert query.ranges == ((32, 64),)
    assert key.ranges == ((8, 16),)


def test_a_degree_that_cuts_through_heads_is_refused_with_those_that_do_not() -> None:
    with pytest.raises(UnsupportedModelError, match=r"tensor_parallel=3 does not divide the 8 attention heads.*1, 2"):
        check_heads({"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 2}, 3)


def test_too_few_key_value_heads_are_named() -> None:
    with pytest.raises(UnsupportedModelError, match="2 key/value heads"):
        check_heads({"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 2}, 4)


def test_an_unknown_family_is_refused_with_a_way_out() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'mamba'.*injection_policy"):
        family_of({"model_type": "mamba"})


def test_a_policy_makes_the_named_linears_row_parallel_and_the_others_column_parallel() -> None:
    family = from_row_parallel(
        "new", r"model\.h\.\d+", ("attn.q", "attn.o", "mlp.up", "mlp.down"), ("attn.o", ".down"), None
    )

    assert family.kind("model.h.0.attn.o") == family.kind("model.h.0.mlp.down") == "row"
    assert family.kind("model.h.0.attn.q") == family.kind("model.h.0.mlp.up") == "column"


def test_sharding_needs_no_torch() -> None:
    container = Path(__file__).parents[2] / "container"
    check = "import sys, bloomery.sharding; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", check], env={"PYTHONPATH": str(container)}, check=False).returncode == 0
    )
