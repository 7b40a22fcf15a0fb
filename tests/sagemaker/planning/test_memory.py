"""Cache and activations of a rank, and what the largest work is that still fits."""

from __future__ import annotations

from typing import Any

import pytest

from bloomery.errors import UnsupportedModelError
from bloomery.sagemaker.planning.form import Form
from bloomery.sagemaker.planning.memory import activation_bytes, cache_bytes, largest, rank_memory
from bloomery.sagemaker.planning.shape import ModelShape, shape_of

FP16, INT8, FP32 = Form("fp16", "fp16", False), Form("int8", "fp16", False), Form("fp32", "fp32", False)
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def changed(**fields: Any) -> ModelShape:
    return shape_of({**LLAMA, **fields})


def test_grouped_heads_keep_fewer_keys_and_values() -> None:
    # Key and value x 32 layers x 8 heads of 128 x 2 bytes: 128 KiB a token.
    assert cache_bytes(changed(), FP16, 1, 1) == 2 * 32 * 8 * 128 * 2 == 128 << 10
    assert cache_bytes(changed(num_key_value_heads=32), FP16, 1, 1) == 512 << 10


def test_one_shared_head_keeps_the_least() -> None:
    shared = changed(model_type="gpt_bigcode", multi_query=True, num_key_value_heads=None)
    assert cache_bytes(shared, FP16, 1, 1) == 2 * 32 * 1 * 128 * 2


def test_ranks_share_the_cache_by_heads() -> None:
    assert cache_bytes(changed(), FP16, 4, 512, ranks=8) * 8 == cache_bytes(changed(), FP16, 4, 512)


def test_the_cache_grows_with_batch_and_length() -> None:
    assert cache_bytes(changed(), FP16, 4, 512) == 4 * 512 * cache_bytes(changed(), FP16, 1, 1)


def test_the_cache_of_an_int8_model_is_in_the_format_that_is_computed_in() -> None:
    assert cache_bytes(changed(), INT8, 1, 1) == cache_bytes(changed(), FP16, 1, 1)
    assert cache_bytes(changed(), FP32, 1, 1) == 2 * cache_bytes(changed(), FP16, 1, 1)


def test_heads_may_be_wider_than_their_share_of_the_hidden_size() -> None:
    assert cache_bytes(changed(head_dim=256), FP16, 1, 1) == 2 * cache_bytes(changed(), FP16, 1, 1)


def test_a_decoder_with_an_encoder_keeps_the_cache_of_both() -> None:
    t5 = {"model_type": "t5", "d_model": 512, "d_kv": 64, "num_heads": 8, "num_layers": 6, "vocab_size": 32128}
    assert cache_bytes(shape_of(t5), FP16, 1, 1) == 2 * 2 * 6 * 8 * 64 * 2


def test_an_encoder_keeps_no_cache() -> None:
    assert cache_bytes(changed(model_type="bert"), FP16, 8, 512) == 0


def test_attention_without_a_fused_kernel_grows_with_the_square_of_the_length() -> None:
    def scores(length: int) -> int:
        return activation_bytes(eager, FP16, 1, length) - activation_bytes(fused, FP16, 1, length)

    fused, eager = changed(model_type="opt"), changed(model_type="bloom")
    assert scores(4096) == 32 * 4096 * 4096 * (2 + 4)
    assert scores(8192) == 4 * scores(4096)


def test_logits_of_a_large_vocabulary_may_take_more_than_a_layer() -> None:
    assert activation_bytes(changed(vocab_size=10**7), FP16, 1, 1) > 3 * 4 * 10**7


def test_several_ranks_need_room_to_communicate() -> None:
    alone, pair = (rank_memory(changed(), FP16, 0, 1, 1, ranks) for ranks in (1, 2))
    assert pair.overhead - alone.overhead == 512 << 20


def test_the_parts_add_up() -> None:
    memory = rank_memory(changed(), FP16, 123, 2, 100, 2)
    assert memory.total == 123 + memory.cache + memory.activations + memory.overhead


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 100, 1000, 2050])
def test_the_largest_that_fits(limit: int) -> None:
    assert largest(lambda number: number <= limit, most=2050) == limit
    assert largest(lambda _: True, most=limit) == limit


@pytest.mark.parametrize("missing", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads"])
def test_a_config_that_says_too_little_is_refused(missing: str) -> None:
    config = {name: value for name, value in LLAMA.items() if name not in (missing, "num_key_value_heads")}
    with pytest.raises(UnsupportedModelError, match=missing):
        shape_of(config)


def test_the_language_part_of_a_larger_config_counts() -> None:
    assert shape_of({"model_type": "llava", "text_config": LLAMA}).layers == 32
