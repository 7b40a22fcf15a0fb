from __future__ import annotations

import logging
from typing import Any

import pytest

from bloomery.errors import ConfigurationError
from djl_python.handler_options import HandlerOptions


def test_everything_has_a_default_but_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSOR_PARALLEL_DEGREE", raising=False)
    assert HandlerOptions.read({"model_dir": "/opt/ml/model"}) == HandlerOptions(
        source="/opt/ml/model",
        revision=None,
        dtype="auto",
        tensor_parallel=1,
        max_tokens=1024,
        enable_streaming=False,
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
        "enable_streaming": "huggingface",
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
        enable_streaming=True,
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
        ("task", "fill-mask", "option.task=fill-mask"),
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
