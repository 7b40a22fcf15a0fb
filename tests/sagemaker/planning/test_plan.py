"""Plans: which options there are, in which order, and what is said about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.weightless import opt_30b, weightless

from bloomery.errors import ConfigurationError, UnsupportedModelError
from bloomery.sagemaker.planning import Plan, plan

G5, P4D, P3 = "ml.g5.12xlarge", "ml.p4d.24xlarge", "ml.p3.8xlarge"


def tiny(directory: Path, stored: str = "F16", **config: Any) -> str:
    """An embedding, and nothing else that weighs anything."""
    given = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 320,
        "max_position_embeddings": 256,
        "dtype": "float16",
        **config,
    }
    return str(weightless(directory, given, {"model.embed_tokens.weight": (320, 64)}, stored, files=1))


def degrees(made: Plan) -> set[int]:
    return {option.degree for option in made.options}


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(opt_30b(tmp_path_factory.mktemp("models") / "opt"))


def test_degrees_are_those_that_divide_query_and_key_value_heads(tmp_path: Path) -> None:
    assert degrees(plan(tiny(tmp_path), instance_types=[P4D])) == {1, 2, 4}


def test_a_degree_that_divides_no_heads_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="degrees that do: 1, 2, 4"):
        plan(tiny(tmp_path), instance_types=[P4D], tensor_parallel=8)


def test_a_degree_above_the_gpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tensor_parallel=4 is more than the GPUs of ml\.g5\.xlarge"):
        plan(tiny(tmp_path), instance_types=["ml.g5.xlarge"], tensor_parallel=4)


def test_a_family_without_a_table_has_one_rank(tmp_path: Path) -> None:
    made = plan(tiny(tmp_path, model_type="falcon"), instance_types=[P4D])
    assert degrees(made) == {1}
    assert made.ranks[0].total == 2 * 320 * 64
    assert any("no tensor-parallel table for model_type 'falcon'" in each for each in made.advice)
    with pytest.raises(UnsupportedModelError, match="plan with --tensor-parallel 1"):
        plan(tiny(tmp_path, model_type="falcon"), instance_types=[P4D], tensor_parallel=2)


def test_gpt2_is_split_by_kernel_injection_only(tmp_path: Path) -> None:
    path = tiny(tmp_path, model_type="gpt2", num_key_value_heads=None)
    assert degrees(plan(path, instance_types=[P4D])) == {1, 2, 4, 8}
    assert degrees(plan(path, instance_types=[P4D], kernel_inject=False)) == {1}
    assert degrees(plan(path, instance_types=[P4D], dtype="int8")) == {1}
    with pytest.raises(UnsupportedModelError, match="split by kernel injection only"):
        plan(path, instance_types=[P4D], dtype="int8", tensor_parallel=2)


def test_every_type_with_gpus_is_looked_at_by_default(opt: str) -> None:
    names = {option.instance_type for option in plan(opt).options}
    assert {"ml.g4dn.xlarge", G5, P4D, "ml.p6-b300.48xlarge"} <= names
    assert not any(name.startswith(("ml.m5", "ml.inf2", "ml.trn1")) for name in names)


def test_without_prices_the_smallest_machine_that_fits_comes_first(opt: str) -> None:
    made = plan(opt, batch=4, length=512)
    assert made.recommended is not None
    assert made.recommended.instance_type == "ml.p5.4xlarge"  # one GPU of 80 GB; four of 24 are more
    fits = [option.fits for option in made.options]
    assert fits == sorted(fits, reverse=True)


def test_with_prices_the_cheapest_that_fits_comes_first(opt: str) -> None:
    made = plan(opt, prices={"ml.g4dn.xlarge": 0.1, P4D: 5.0, G5: 7.09})
    assert made.recommended is not None
    assert (made.recommended.instance_type, made.recommended.price) == (P4D, 5.0)


def test_each_types_best_option_makes_the_most_copies_and_leaves_no_gpu_idle(opt: str) -> None:
    by_type = {option.instance_type: option for option in plan(opt).best_of_each()}
    assert (by_type[P4D].degree, by_type[P4D].copies) == (2, 4)
    assert (by_type["ml.p3.16xlarge"].degree, by_type["ml.p3.16xlarge"].copies) == (8, 1)  # seven would do
    assert by_type["ml.g4dn.12xlarge"].fits is False


def test_of_what_does_not_fit_the_nearest_comes_first(opt: str) -> None:
    made = plan(opt, instance_types=["ml.g5.xlarge", "ml.g4dn.12xlarge", G5], tensor_parallel=1)
    assert not any(option.fits for option in made.options)
    free = [option.free for option in made.options]
    assert free == sorted(free, reverse=True)


def test_the_largest_batch_and_length_just_fit(opt: str) -> None:
    found = plan(opt, instance_types=[G5], tensor_parallel=4, batch=2, length=256).options[0]
    for batch, length in ((found.largest_batch, 256), (2, found.largest_length)):
        assert plan(opt, instance_types=[G5], tensor_parallel=4, batch=batch, length=length).options[0].fits
    more = plan(opt, instance_types=[G5], tensor_parallel=4, batch=found.largest_batch + 1, length=256)
    assert not more.options[0].fits
    assert found.largest_length <= 2048  # the positions that it knows


def test_the_dtype_is_the_checkpoints_own_unless_it_is_given(tmp_path: Path) -> None:
    assert plan(tiny(tmp_path / "a", dtype="bfloat16")).form.dtype == "bf16"
    assert plan(tiny(tmp_path / "b", dtype=None, torch_dtype="float16")).form.dtype == "fp16"
    assert plan(tiny(tmp_path / "c", dtype=None)).form.dtype == "fp32"  # as the engines take it
    assert plan(tiny(tmp_path / "d"), dtype="int8").form.dtype == "int8"


def test_kernel_injection_where_it_is_right(opt: str, tmp_path: Path) -> None:
    assert plan(opt).form.injected
    assert not plan(opt, dtype="int8").form.injected
    assert not plan(opt, kernel_inject=False).form.injected
    post_norm = tiny(tmp_path, model_type="opt", num_key_value_heads=None, do_layer_norm_before=False)
    assert not plan(post_norm).form.injected
    with pytest.raises(ConfigurationError, match="wrong for do_layer_norm_before=False"):
        plan(post_norm, kernel_inject=True)
    with pytest.raises(ConfigurationError, match="not available for llama"):
        plan(tiny(tmp_path / "llama"), kernel_inject=True)


def test_what_a_user_gets_wrong_is_said_in_words(opt: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "int4"}, "dtype='int4' is not one of auto, fp16, bf16, int8, fp32"),
        ({"batch": 0}, "batch=0: it must be at least 1"),
        ({"length": -1}, "length=-1"),
        ({"tensor_parallel": 0}, "tensor_parallel=0"),
        ({"prices": {G5: float("nan")}}, "price of ml.g5.12xlarge"),
        ({"instance_types": ["g5.12xlarge"]}, "'g5.12xlarge' is not in the table"),
        ({"instance_types": ["ml.inf2.48xlarge"]}, "has 12 Inferentia2"),
        ({"instance_types": ["ml.m5.xlarge"]}, "has no accelerator"),
    ]
    for given, words in wrong:
        with pytest.raises(ConfigurationError) as caught:
            plan(opt, **given)
        assert words in str(caught.value)


def advice(made: Plan) -> str:
    return "\n".join(made.advice)


def test_files_in_a_wider_format_are_better_written_anew(tmp_path: Path, opt: str) -> None:
    assert "--dtype fp16 --tensor-parallel" in advice(plan(tiny(tmp_path / "a", "F32"), dtype="fp16"))
    assert "--dtype int8 --tensor-parallel 4" in advice(plan(opt, instance_types=[G5], dtype="int8", tensor_parallel=4))
    assert "bloomery shard" not in advice(plan(opt, instance_types=[G5]))


def test_gpus_without_bf16_are_named(tmp_path: Path) -> None:
    path = tiny(tmp_path, dtype="bfloat16")
    assert "V100 has no bf16 arithmetic" in advice(plan(path, instance_types=[P3]))
    assert "bf16" not in advice(plan(path, instance_types=[G5]))


def test_a_quantised_checkpoint_is_named(tmp_path: Path) -> None:
    assert "quantised (gptq)" in advice(plan(tiny(tmp_path, quantization_config={"quant_method": "gptq"})))


def test_a_length_beyond_the_positions_is_named(tmp_path: Path) -> None:
    assert "--length 300 is more than the 256 positions" in advice(plan(tiny(tmp_path), length=300))


def test_the_usual_length_is_no_more_than_the_positions(tmp_path: Path) -> None:
    assert plan(tiny(tmp_path)).work.length == 256


def test_a_licence_that_forbids_commercial_use_is_named(tmp_path: Path) -> None:
    path = tiny(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert "licence cc-by-nc-4.0: not for commercial use" in advice(plan(path))


def test_a_load_that_is_too_slow_is_advised_on(opt: str, tmp_path: Path) -> None:
    # 300 GB over a volume of 0.25 GB/s: 20 min to fetch; three times that is more than SageMaker waits.
    path = Path(tiny(tmp_path))
    with (path / "tokenizer.model").open("wb") as file:
        file.truncate(300 * 10**9)
    made = plan(str(path), instance_types=[P3])
    assert made.options[0].timeouts.startup == 3600
    assert "SageMaker takes 3600 at most: stream it" in advice(made)


def test_a_disk_that_is_too_small_is_advised_on(tmp_path: Path) -> None:
    path = Path(tiny(tmp_path))
    with (path / "tokenizer.model").open("wb") as file:
        file.truncate(240 * 10**9)
    assert "no room on the 250 GB of ml.g5.xlarge: set option.load_format=stream" in advice(
        plan(str(path), instance_types=["ml.g5.xlarge"])
    )


def test_json_has_what_a_deployment_needs(opt: str) -> None:
    made = plan(opt, instance_types=[G5], tensor_parallel=4, length=512)
    found = json.loads(json.dumps(made.to_dict()))
    (option,) = found["options"]
    assert found["recommended"] == G5
    assert found["parameters"] == 29_974_540_288
    assert option["environment"] == {
        "TENSOR_PARALLEL_DEGREE": "4",
        "OPTION_DTYPE": "fp16",
        "OPTION_KERNEL_INJECT": "true",
        "OPTION_MAX_TOKENS": "512",
    }
    assert option["VolumeSizeInGB"] is None
    assert 60 <= option["ModelDataDownloadTimeoutInSeconds"] <= 3600
    assert 60 <= option["ContainerStartupHealthCheckTimeoutInSeconds"] <= 3600
    assert option["quota"] == {"name": "ml.g5.12xlarge for endpoint usage", "value": None}
    assert option["rank_bytes"]["weights"] == found["ranks"][0]["total"]
