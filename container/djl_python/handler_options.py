"""What the built-in handlers read from the initialise call's properties, checked once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bloomery.errors import ConfigurationError

KernelInject = bool | Literal["auto"]
_SWITCHES: dict[str, bool] = {"true": True, "false": False}


@dataclass(frozen=True)
class HandlerOptions:
    """The options that loading and answering need, under the names that ``serving.properties`` gives them."""

    source: str  # option.s3url, else option.model_id, else the model directory itself
    revision: str | None
    dtype: str
    tensor_parallel: int
    max_tokens: int
    enable_streaming: bool
    kernel_inject: KernelInject
    device_map: str | None

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
        degree = options.get("tensor_parallel_degree") or os.environ.get("TENSOR_PARALLEL_DEGREE") or "1"
        return cls(
            source=source,
            revision=options.get("revision"),
            dtype=options.get("dtype") or options.get("data_type") or "auto",
            tensor_parallel=_count("tensor_parallel_degree", degree),
            max_tokens=_count("max_tokens", options.get("max_tokens", "1024")),
            # DJLServing 0.23 knows "huggingface" too, which chose between two implementations of the same stream.
            enable_streaming=_choice(
                "enable_streaming", options.get("enable_streaming", "false"), {**_SWITCHES, "huggingface": True}
            ),
            kernel_inject=_choice("kernel_inject", options.get("kernel_inject", "auto"), {**_SWITCHES, "auto": "auto"}),
            device_map=options.get("device_map"),
        )


def _count(name: str, value: str) -> int:
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise ConfigurationError(f"option.{name}={value}: it must be a whole number above 0.")


def _choice(name: str, value: str, choices: Mapping[str, Any]) -> Any:
    try:
        return choices[value.lower()]
    except KeyError:
        raise ConfigurationError(f"option.{name}={value}: it must be one of {', '.join(choices)}.") from None
