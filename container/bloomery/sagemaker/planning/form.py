"""In which form a model is kept on a GPU: the number format, and whether DeepSpeed's own layers replace the model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.planning.facts import CheckpointFacts
from bloomery.sharding.injection import FAMILIES as INJECTED

OPTIONS = ("auto", "fp16", "bf16", "int8", "fp32")
_ITEMSIZE = {"fp32": 4, "fp16": 2, "bf16": 2}
_CONFIGURED = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Form:
    """``dtype``: fp32, fp16, bf16 or int8. ``computed``: what all but int8 weights are in, the cache too. ``injected``:
    kernel injection; else automatic tensor parallelism."""

    dtype: str
    computed: str
    injected: bool

    @property
    def int8(self) -> bool:
        """Whether linear layers are int8, with a scale per output. Layers with DeepSpeed's own kernels stay as they
        are: the engine has int8 products for torch's layers only."""
        return self.dtype == "int8" and not self.injected

    @property
    def itemsize(self) -> int:
        """Bytes of one number that is not int8."""
        return _ITEMSIZE[self.computed]


def choose(dtype: str, kernel_inject: bool | None, facts: CheckpointFacts) -> Form:
    """What ``option.dtype`` and ``option.kernel_inject`` make of this checkpoint on a GPU, as the engines do it.

    kernel_inject None: where it is right for the model, as code/model.py wishes it, but not with int8.
    Raises ConfigurationError.
    """
    if dtype not in OPTIONS:
        raise ConfigurationError(f"dtype={dtype!r} is not one of {', '.join(OPTIONS)}")
    if dtype == "auto":
        said = facts.config.get("dtype") or facts.config.get("torch_dtype")
        dtype = "int8" if facts.split_dtype == "int8" else _CONFIGURED.get(str(said), "fp32")
    available, why = kernel_injection(facts.config)
    if kernel_inject and not available:
        raise ConfigurationError(f"kernel injection is {why}: leave --kernel-inject out")
    injected = available and dtype != "int8" if kernel_inject is None else kernel_inject
    return Form(dtype, "fp16" if dtype == "int8" else dtype, injected)


def kernel_injection(config: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether DeepSpeed's own kernels can serve such a model, and what else there is to say."""
    model_type = str(config.get("model_type", ""))
    family = INJECTED.get(model_type)
    if family is None:
        return False, f"not available for {model_type or 'this model'}; it is for {', '.join(sorted(INJECTED))}"
    for field, value in family.required.items():
        if config.get(field, value) != value:
            return False, f"wrong for {field}={config[field]!r}; DeepSpeed's layer has {value!r}"
    return True, "available"
