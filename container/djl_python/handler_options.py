"""What the built-in handlers read from the initialise call's properties, checked once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bloomery.errors import ConfigurationError
from bloomery.tasks.options import AnswerOptions, choice, texts

log = logging.getLogger(__name__)

KernelInject = bool | Literal["auto"]
_SWITCHES: dict[str, bool] = {"true": True, "false": False}
# Options of DJLServing's handlers that would change answers or speed there, and do nothing here.
_WITHOUT_EFFECT = (
    "checkpoint",
    "deepspeed_config_path",
    "max_rolling_batch_prefill_tokens",
    "max_rolling_batch_size",
    "rolling_batch",
    "save_mp_checkpoint_path",
    "waiting_steps",
)
_NO_QUANTISATION = ("none", "disable", "false")
# What other libraries' 8-bit weights become here: option.dtype=int8, weight-only, quantised while loading.
_INT8 = ("bitsandbytes", "bitsandbytes8", "dynamic_int8")


@dataclass(frozen=True)
class HandlerOptions:
    """The options that loading and answering need, under the names that ``serving.properties`` gives them."""

    source: str  # option.model_id, else option.s3url, else the model directory itself
    revision: str | None
    dtype: str
    tensor_parallel: int
    max_tokens: int
    task: str | None  # None: as the checkpoint's config.json says
    answers: AnswerOptions
    trust_remote_code: bool
    kernel_inject: KernelInject  # DeepSpeed only
    injection_policy: dict[str, tuple[str, ...]] | None  # DeepSpeed only
    allreduce: str  # DeepSpeed only, between ranks on CPUs
    device_map: str | None  # transformers only
    chat_template: str | None = None
    load_format: str = "auto"  # checkpoints.locate knows them
    allow_pickle: bool = True

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> HandlerOptions:
        """The options in ``properties``; a ConfigurationError names the one that is wrong."""
        options = texts(properties)
        source = options.get("model_id") or options.get("s3url") or options.get("model_dir")
        if source is None:
            raise ConfigurationError("No model is named: set option.model_id to a directory, an s3:// URL or a hub id.")
        for name in _WITHOUT_EFFECT:
            if options.get(name, "disable") != "disable":
                log.warning("option.%s=%s has no effect in this handler", name, options[name])
        _refuse_adapters(options)
        degree = options.get("tensor_parallel_degree") or os.environ.get("TENSOR_PARALLEL_DEGREE") or "1"
        return cls(
            source=source,
            revision=options.get("revision"),
            dtype=dtype_of(options),
            tensor_parallel=_count("tensor_parallel_degree", degree),
            max_tokens=_count("max_tokens", options.get("max_tokens", "1024")),
            task=options.get("task"),
            answers=AnswerOptions.read(options),
            trust_remote_code=choice(options, "trust_remote_code", "false", _SWITCHES),
            kernel_inject=choice(options, "kernel_inject", "auto", {**_SWITCHES, "auto": "auto"}),
            injection_policy=_policy(options.get("injection_policy")),
            allreduce=choice(options, "allreduce", "auto", {name: name for name in ("auto", "gloo", "shm")}),
            device_map=options.get("device_map"),
            chat_template=options.get("chat_template"),
            load_format=options.get("load_format", "auto"),
            allow_pickle=choice(options, "allow_pickle", "true", _SWITCHES),
        )


def _count(name: str, value: str) -> int:
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise ConfigurationError(f"option.{name}={value}: it must be a whole number above 0.")


def dtype_of(properties: Mapping[str, Any]) -> str:
    """option.dtype, or int8 where 8-bit weights are asked for in another library's words; auto when nothing is said."""
    options = texts(properties)
    stated = options.get("dtype") or options.get("data_type") or "auto"
    quantize = options.get("quantize", "none").lower()
    if choice(options, "load_in_4bit", "false", _SWITCHES):
        raise ConfigurationError("option.load_in_4bit=true: 4-bit weights are not made here; use option.dtype=int8.")
    if quantize not in _NO_QUANTISATION and quantize not in _INT8:
        raise ConfigurationError(
            f"option.quantize={options['quantize']}: this quantisation is not made here; use option.dtype=int8 "
            "(weights in 8 bits), or leave it out."
        )
    in_8bit = choice(options, "load_in_8bit", "false", _SWITCHES)
    if not in_8bit and quantize in _NO_QUANTISATION:
        return stated
    asked = "load_in_8bit=true" if in_8bit else f"quantize={options['quantize']}"
    log.warning("option.%s is served as option.dtype=int8: weights in 8 bits, arithmetic as before", asked)
    return "int8"


def _refuse_adapters(options: Mapping[str, str]) -> None:
    if choice(options, "enable_lora", "false", _SWITCHES):
        raise ConfigurationError(
            "option.enable_lora=true: the built-in handlers serve no LoRA adapters; merge the adapter into its model "
            "(peft: merge_and_unload, then save_pretrained) and serve the result."
        )


def _policy(text: str | None) -> dict[str, tuple[str, ...]] | None:
    """``{"BloomBlock": ["self_attention.dense", "mlp.dense_4h_to_h"]}`` as JSON."""
    if text is None:
        return None
    try:
        policy = json.loads(text)
        if all(isinstance(name, str) for names in policy.values() for name in names):
            return {block: tuple(names) for block, names in policy.items()}
    except (ValueError, AttributeError, TypeError):
        pass
    raise ConfigurationError(
        f"option.injection_policy={text}: it must be JSON that names the row-parallel linears of each block class, "
        'such as {"BloomBlock": ["self_attention.dense", "mlp.dense_4h_to_h"]}.'
    )
