"""What the built-in handlers read from the initialise call's properties, checked once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bloomery.errors import ConfigurationError

log = logging.getLogger(__name__)

KernelInject = bool | Literal["auto"]
_SWITCHES: dict[str, bool] = {"true": True, "false": False}
# Options of DJLServing's handlers that would change answers or speed there, and do nothing here.
_WITHOUT_EFFECT = (
    "checkpoint",
    "deepspeed_config_path",
    "load_in_4bit",
    "load_in_8bit",
    "output_formatter",
    "quantize",
    "rolling_batch",
    "save_mp_checkpoint_path",
    "stop_sequence",
)


@dataclass(frozen=True)
class HandlerOptions:
    """The options that loading and answering need, under the names that ``serving.properties`` gives them."""

    source: str  # option.s3url, else option.model_id, else the model directory itself
    revision: str | None
    dtype: str
    tensor_parallel: int
    max_tokens: int
    enable_streaming: bool
    trust_remote_code: bool
    kernel_inject: KernelInject  # DeepSpeed only
    injection_policy: dict[str, tuple[str, ...]] | None  # DeepSpeed only
    allreduce: str  # DeepSpeed only, between ranks on CPUs
    device_map: str | None  # transformers only
    chat_template: str | None = None

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> HandlerOptions:
        """The options in ``properties``; a ConfigurationError names the one that is wrong."""
        options = {name: str(value).strip() for name, value in properties.items() if str(value).strip()}
        task = options.get("task", "text-generation")
        if task != "text-generation":
            raise ConfigurationError(f"option.task={task}: the built-in handlers serve text-generation only.")
        source = options.get("s3url") or options.get("model_id") or options.get("model_dir")
        if source is None:
            raise ConfigurationError("No model is named: set option.model_id to a directory, an s3:// URL or a hub id.")
        for name in _WITHOUT_EFFECT:
            if options.get(name, "disable") != "disable":
                log.warning("option.%s=%s has no effect in this handler", name, options[name])
        degree = options.get("tensor_parallel_degree") or os.environ.get("TENSOR_PARALLEL_DEGREE") or "1"
        return cls(
            source=source,
            revision=options.get("revision"),
            dtype=options.get("dtype") or options.get("data_type") or "auto",
            tensor_parallel=_count("tensor_parallel_degree", degree),
            max_tokens=_count("max_tokens", options.get("max_tokens", "1024")),
            # DJLServing 0.23 knows "huggingface" too, which chose between two implementations of the same stream.
            enable_streaming=_choice(options, "enable_streaming", "false", {**_SWITCHES, "huggingface": True}),
            trust_remote_code=_choice(options, "trust_remote_code", "false", _SWITCHES),
            kernel_inject=_choice(options, "kernel_inject", "auto", {**_SWITCHES, "auto": "auto"}),
            injection_policy=_policy(options.get("injection_policy")),
            allreduce=_choice(options, "allreduce", "auto", {name: name for name in ("auto", "gloo", "shm")}),
            device_map=options.get("device_map"),
            chat_template=options.get("chat_template"),
        )


def _count(name: str, value: str) -> int:
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise ConfigurationError(f"option.{name}={value}: it must be a whole number above 0.")


def _choice(options: Mapping[str, str], name: str, default: str, choices: Mapping[str, Any]) -> Any:
    value = options.get(name, default)
    try:
        return choices[value.lower()]
    except KeyError:
        raise ConfigurationError(f"option.{name}={value}: it must be one of {', '.join(choices)}.") from None


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
