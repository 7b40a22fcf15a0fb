"""What is compared: the same model, request and number of cores, by different engines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Configuration:
    """One way to serve the model. ``kind`` is what ``bloomery.bench.rank`` loads."""

    name: str
    kind: str  # "plain": transformers placed by accelerate, untouched; "python", "deepspeed": our engines
    tensor_parallel: int = 1
    kernel_inject: bool = False


BASELINE = "accelerate"
CONFIGURATIONS = (
    Configuration(BASELINE, "plain"),
    Configuration("python engine", "python"),
    Configuration("deepspeed tp1 autotp", "deepspeed"),
    Configuration("deepspeed tp1 injection", "deepspeed", kernel_inject=True),
    Configuration("deepspeed tp2 autotp", "deepspeed", tensor_parallel=2),
    Configuration("deepspeed tp2 injection", "deepspeed", tensor_parallel=2, kernel_inject=True),
)
