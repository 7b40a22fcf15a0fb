from __future__ import annotations

import logging
from typing import Any

import pytest

from bloomery.errors import ConfigurationError
from bloomery.formats import Style
from bloomery.tasks import AnswerOptions
from djl_python.handler_options import HandlerOptions


def test_everything_has_a_default_but_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSOR_PARALLEL_DEGREE", raising=False)
    assert HandlerOptions.read({"model_dir": "/opt/ml/model"}) == HandlerOptions(
        source="/opt/ml/model",
        revision=None,
        dtype="auto",
        tensor_parallel=1,
        max_tokens=1024,
        task=None,
        answers=AnswerOptions(),
        trust_remote_code=False,
        kernel_inject="auto",
        injection_policy=None,
        allreduce="auto",
        device_map=None,
    )


def test_every_option_is_read() -> None:
    properties: dict[str, Any] = {
        "model_dir": "/opt/ml/model",
        "model_id": "org/name",
        "revision": "v1",
        "data_type": "bf16",
        "tensor_parallel_degree": 2,  # the worker makes it a number
        "max_tokens": "2048",
        "task": "fill-mask",
        "enable_streaming": "huggingface",
        "answer_format": "object",
        "stop_sequence": "['a','b']",
        "trust_remote_code": "True",
        "kernel_inject": "false",
        "injection_policy": '{"BloomBlock": ["self_attention.dense", "mlp.dense_4h_to_h"]}',
        "allreduce": "gloo",
        "device_map": "auto",
    }
    assert HandlerOptions.read(properties) == HandlerOptions(
        source="org/name",
        revision="v1",
        dtype="bf16",
        tensor_parallel=2,
        max_tokens=2048,
        task="fill-mask",
        answers=AnswerOptions(stream=True, style=Style("object"), stop_sequences=("a", "b")),
        trust_remote_code=True,
        kernel_inject=False,
        injection_policy={"BloomBlock": ("self_attention.dense", "mlp.dense_4h_to_h")},
        allreduce="gloo",
        device_map="auto",
    )


def test_the_degree_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSOR_PARALLEL_DEGREE", "4")
    assert HandlerOptions.read({"model_id": "org/name"}).tensor_parallel == 4


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_tokens", "many", "option.max_tokens=many: it must be a whole number above 0"),
        ("max_tokens", "0", "option.max_tokens=0"),
        ("tensor_parallel_degree", "-1", "option.tensor_parallel_degree=-1"),
        ("kernel_inject", "yes", "option.kernel_inject=yes: it must be one of true, false, auto"),
        ("enable_streaming", "1", "option.enable_streaming=1"),
        ("answer_format", "xml", "option.answer_format=xml"),
        ("load_in_4bit", "true", "option.load_in_4bit=true: 4-bit weights are not made here; use option.dtype=int8"),
        ("quantize", "smoothquant", "option.quantize=smoothquant: this quantisation is not made here"),
        ("quantize", "awq", "option.quantize=awq"),
        ("enable_lora", "true", "option.enable_lora=true: the built-in handlers serve no LoRA adapters; merge"),
        ("injection_policy", "BloomBlock", "option.injection_policy=BloomBlock: it must be JSON"),
        ("injection_policy", '{"BloomBlock": [1]}', "it must be JSON that names"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HandlerOptions.read({"model_id": "org/name", name: value})
    assert message in str(caught.value)


def test_a_model_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match=r"set option\.model_id"):
        HandlerOptions.read({"model_id": ""})


def test_an_option_without_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        HandlerOptions.read({"model_id": "org/name", "rolling_batch": "auto", "quantize": "disable"})
    assert "option.rolling_batch=auto has no effect" in caplog.text
    assert "quantize" not in caplog.text


INT8_ELSEWHERE = [("load_in_8bit", "true"), ("quantize", "dynamic_int8"), ("quantize", "bitsandbytes8")]


@pytest.mark.parametrize(("name", "value"), INT8_ELSEWHERE)
def test_8_bits_in_other_words_are_served_as_int8(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        options = HandlerOptions.read({"model_id": "org/name", name: value, "dtype": "fp16"})
    assert options.dtype == "int8"
    assert f"option.{name}={value} is served as option.dtype=int8" in caplog.text


def test_what_is_declined_changes_nothing() -> None:
    declined = {"load_in_8bit": "false", "load_in_4bit": "false", "quantize": "disable", "enable_lora": "false"}
    assert HandlerOptions.read({"model_id": "org/name", **declined}).dtype == "auto"
