"""DeepSpeed's kernel injection: what it refuses, what it leaves behind, and its keys and values on a CPU.

That injected models compute rightly is shown in test_parity.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from deepspeed.module_inject import containers
from deepspeed.ops.transformer.inference.op_binding.base import BaseOp
from tests.support import parity
from tests.support.tiny_models import randomise, tiny_config

from bloomery.engines import deepspeed, injection_cpu, linear
from bloomery.engines.injection import inject
from bloomery.errors import BadRequestError, CheckpointError, UnsupportedModelError, UnsupportedRequestError
from bloomery.sharding.injection import FAMILIES, check_injectable


def injected(family: str, **options: Any) -> Any:
    return inject(parity.whole_model(family), dtype=torch.float32, tensor_parallel=1, max_tokens=64, **options)


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    return parity.padded(prompts)


# Refusals before anything is loaded


@pytest.mark.parametrize("family", ["llama", "qwen3", "bert"])
def test_a_family_without_kernels_is_sent_to_automatic_tensor_parallelism(family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"not available for model type '{family}'.*AutoTP"):
        check_injectable(transformers.AutoConfig.for_model(family), 2)


@pytest.mark.parametrize(
    ("family", "config", "named"),
    [
        ("opt", {"do_layer_norm_before": False, "ffn_dim": 256}, "do_layer_norm_before is False.*opt-350m.*AutoTP"),
        ("opt", {"enable_bias": False, "ffn_dim": 256}, "enable_bias is False.*AutoTP"),
        ("opt", {"ffn_dim": 128}, "ffn_dim is 128.*256.*AutoTP"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection.*AutoTP"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx.*accelerate"),
        ("gpt2", {"n_inner": 100}, "n_inner is 100"),
        ("gptj", {"activation_function": "silu"}, "activation_function is 'silu'.*gelu"),
        ("gpt_neox", {"intermediate_size": 256, "use_parallel_residual": False}, "use_parallel_residual is False"),
    ],
)
def test_what_deepspeed_would_compute_wrongly_is_refused(family: str, config: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        check_injectable(tiny_config(family, **config), 1)


def test_a_degree_that_cuts_through_a_head_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="tensor_parallel=3 does not divide the 4 attention heads"):
        check_injectable(tiny_config("bloom"), 3)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_ordinary_model_of_a_family_with_kernels_is_taken(family: str) -> None:
    assert check_injectable(parity.whole_model(family).config, 2) is FAMILIES[family]


def test_a_second_injected_model_is_refused_until_the_first_is_gone() -> None:
    first = injected("bloom")
    with pytest.raises(UnsupportedModelError, match="already holds a model with injected kernels"):
        injected("opt")

    del first
    gc.collect()
    assert torch.isfinite(parity.logits_of(injected("opt"))).all()


def test_a_model_on_the_meta_device_must_be_filled() -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(tiny_config("bloom"))

    with pytest.raises(ValueError, match="pass fill"):
        inject(model, dtype=torch.float32, tensor_parallel=1, max_tokens=64)


# Refusals while it runs


def test_a_prompt_cannot_be_continued_by_several_tokens() -> None:
    model = injected("bloom")
    cache = model(**padded([[5, 6, 7]])).past_key_values

    with pytest.raises(UnsupportedRequestError, match="continued by 2 tokens"):
        model(input_ids=torch.tensor([[8, 9]]), past_key_values=cache)


def test_a_second_generation_cannot_run_beside_the_first() -> None:
    model = injected("bloom")
    first = model(**padded([[5, 6, 7]])).past_key_values
    model(**padded([[8, 9]]))

    with pytest.raises(UnsupportedRequestError, match="one generation runs at a time"):
        model(input_ids=torch.tensor([[8]]), past_key_values=first)


def test_beam_search_is_refused() -> None:
    model = injected("gpt2")

    with pytest.raises(UnsupportedRequestError, match="beam"):
        model.generate(**padded([[5, 6, 7]]), num_beams=2, max_new_tokens=4, do_sample=False, pad_token_id=3)


def test_more_tokens_than_the_model_was_loaded_for_are_refused() -> None:
    model = injected("gpt2")

    with pytest.raises(BadRequestError, match="65 tokens exceed max_tokens=64"):
        model(**padded([list(range(4, 69))]))


# Loading


def test_a_weight_that_the_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    parity.whole_model("bloom").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lacking = {name: tensor for name, tensor in weights.items() if not name.endswith("h.1.mlp.dense_4h_to_h.bias")}
    assert len(lacking) == len(weights) - 1
    save_file(lacking, tmp_path / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.dense_4h_to_h\.bias"):
        deepspeed.load(tmp_path, tensor_parallel=1, kernel_inject=True)


def test_deepspeed_is_left_as_it_was() -> None:
    before = BaseOp.inference_module, containers.DS_BloomContainer, containers.DS_GPT2Container
    model = injected("bloom")

    assert (BaseOp.inference_module, containers.DS_BloomContainer, containers.DS_GPT2Container) == before
    assert model is not None


def test_every_matrix_product_of_a_layer_can_be_exchanged() -> None:
    model = injected("opt")
    right = parity.logits_of(model)

    class Doubled(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.linear(x)

    linears = list(injection_cpu.injected_linears(model))
    assert len(linears) == 4 * model.config.num_hidden_layers
    for owner, name, product in linears:
        setattr(owner, name, Doubled(product))
        assert float((parity.logits_of(model) - right).abs().max()) > 0.1
        setattr(owner, name, product)
    assert torch.equal(parity.logits_of(model), right)


def test_int8_reaches_the_matrices_of_injected_layers() -> None:
    model = injected("bloom")
    right = parity.logits_of(model)

    report = linear.quantize_(model)

    assert len(report.layers) == 4 * model.config.num_hidden_layers
    assert 0 < linear.logits_error(right, parity.logits_of(model)) < 0.1


@pytest.mark.parametrize("family", ["bloom", "gpt_neox"])
def test_bf16_differs_by_rounding_alone(family: str) -> None:
    right = parity.logits_of(parity.whole_model(family))
    whole = parity.whole_model(family).to(torch.bfloat16)
    model = inject(whole, dtype=torch.bfloat16, tensor_parallel=1, max_tokens=64)

    assert 0 < linear.logits_error(right, parity.logits_of(model)) < 0.05


# DeepSpeed's own operators: their torch fallbacks are right for GPT-2 with exact GELU, and take what the kernels take


@pytest.fixture
def with_deepspeed_operators() -> tuple[Any, Any]:
    whole = transformers.AutoModelForCausalLM.from_config(
        tiny_config("gpt2", activation_function="gelu"), dtype=torch.float32
    ).eval()
    whole.generation_config.eos_token_id = None
    randomise(whole)
    whole.tie_weights()
    copy = transformers.AutoModelForCausalLM.from_config(whole.config, dtype=torch.float32)
    copy.load_state_dict(whole.state_dict())
    copy.generation_config = whole.generation_config
    return whole, inject(copy, dtype=torch.float32, tensor_parallel=1, max_tokens=64, deepspeed_kernels=True)


@pytest.mark.parametrize(
    "requests",
    [[parity.PROMPTS[:2]], [parity.PROMPTS[:2], parity.PROMPTS], [parity.PROMPTS[:1], parity.ONE_TOKEN]],
    ids=["padded batch", "growing batch", "one token after a prompt"],
)
def test_deepspeeds_operators_are_called_as_they_expect(
    with_deepspeed_operators: tuple[Any, Any], requests: list[list[list[int]]]
) -> None:
    whole, model = with_deepspeed_operators
    for prompts in requests:
        wanted, found = (
            each.generate(**padded(prompts), max_new_tokens=8, do_sample=False, pad_token_id=3)
            for each in (whole, model)
        )
        assert found.tolist() == wanted.tolist()


# Keys and values on a CPU


def test_the_cache_keeps_all_tokens_while_it_grows() -> None:
    cache, everything = injection_cpu.KeyValueCache(), torch.randn(2, 2, 3, 200, 4)
    cache.append(everything[:, :, :, :50], 0)
    for token in range(50, 200):
        held = cache.append(everything[:, :, :, token : token + 1], token)

    assert torch.equal(held, everything)


def test_a_token_is_added_without_copying_the_cache() -> None:
    cache = injection_cpu.KeyValueCache()
    before = cache.append(torch.randn(2, 2, 3, 65, 4), 0)
    after = cache.append(torch.randn(2, 2, 3, 1, 4), 65)

    assert after.data_ptr() == before.data_ptr()
    assert torch.equal(after[:, :, :, :65], before)


def test_a_smaller_batch_uses_the_room_of_a_larger_one() -> None:
    cache, small = injection_cpu.KeyValueCache(), torch.randn(2, 1, 2, 6, 4)
    large = cache.append(torch.randn(2, 4, 2, 9, 4), 0)
    held = cache.append(small, 0)

    assert held.data_ptr() == large.data_ptr()
    assert torch.equal(held, small)


def test_a_local_mask_hides_what_lies_before_the_window() -> None:
    shared = injection_cpu.Attended(past=3, mask=torch.zeros(1, 1, 1, 4))

    mask = shared.local_mask(2)

    assert mask is not None
    assert (mask == 0).flatten().tolist() == [False, False, True, True]
