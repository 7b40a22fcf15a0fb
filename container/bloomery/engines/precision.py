"""Which number format a model is kept and computed in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from bloomery.errors import ConfigurationError
from bloomery.processes import rank

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


def choose(name: str, config: Any, device: str) -> Precision:
    """What ``dtype=name`` means for this model on this kind of device ("cpu" or "cuda")."""
    wanted = name.lower().removeprefix("torch.")
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


def prepare(model: Any, chosen: Precision, device: str) -> None:
    """Quantise the weights, or lay them out as this processor reads them fastest; says in the log what was done."""
    # Imported here: it compiles and measures, which a process that only chooses a precision need not pay for.
    from bloomery.engines import linear

    rank.current.report("preparing kernels")
    if chosen.int8:
        log.info("int8: %s", linear.quantize_(model))
    elif device == "cpu":
        log.info("linear layers: %s", linear.optimize_(model))
