"""Which number format a model is kept and computed in."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bloomery.engines import linear
from bloomery.engines.split_safetensors import StoredScales
from bloomery.errors import ConfigurationError

log = logging.getLogger(__name__)

_NAMES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "float": torch.float32,
    "fp16": torch.float16,
    "float16": torch.float16,
    "half": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Precision:
    """``int8``: weights are quantised after loading; ``dtype`` is then what everything else is in."""

    dtype: torch.dtype
    int8: bool = False


def choose(name: str, config: Any, device: str, stored: str = "") -> Precision:
    """What ``dtype=name`` means for this model on this kind of device ("cpu" or "cuda"). ``stored``: what the
    checkpoint was written in, where it says more than its config."""
    wanted = name.lower().removeprefix("torch.")
    if wanted == "auto" and stored == "int8":
        wanted = stored
    if wanted == "int8":
        return Precision(torch.float32 if device == "cpu" else torch.float16, int8=True)
    if wanted == "auto":
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    elif wanted in _NAMES:
        dtype = _NAMES[wanted]
    else:
        raise ConfigurationError(f"dtype={name!r} is not one of fp32, fp16, bf16, int8, auto")
    if device == "cpu" and dtype == torch.float16:
        log.warning("fp16 is computed in fp32: this processor has no fp16 arithmetic that DeepSpeed accepts")
        dtype = torch.float32
    return Precision(dtype)


class Preparation:
    """Quantises weights, or lays them out as this processor reads them fastest, part by part while they are loaded."""

    def __init__(self, chosen: Precision, device: str, stored: MutableMapping[int, StoredScales] | None = None) -> None:
        """``stored``: as ``linear.quantize_`` wants it."""
        self._stored = stored
        self._int8, self._optimize = chosen.int8, device == "cpu" and not chosen.int8
        self._quantized: list[linear.QuantizedLayer] = []
        self._kept: list[tuple[str, str]] = []
        self._counts: Counter[str] = Counter()

    def apply(self, module: nn.Module, prefix: str = "") -> None:
        """Prepare the linear layers inside ``module``; those already prepared stay as they are."""
        if self._int8:
            report = linear.quantize_(module, stored=self._stored)
            self._quantized += [replace(layer, name=prefix + layer.name) for layer in report.layers]
            self._kept += [(prefix + name, reason) for name, reason in report.kept]
        elif self._optimize:
            self._counts.update(vars(linear.optimize_(module)))

    def finish(self) -> None:
        """Say in the log what was done."""
        if self._int8:
            log.info("%s", linear.QuantizationReport(tuple(self._quantized), tuple(self._kept)))
        elif self._optimize:
            log.info("linear layers: %s", linear.OptimizationReport(**self._counts))
