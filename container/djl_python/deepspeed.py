"""The built-in handler of engine=DeepSpeed: a checkpoint split over the ranks, without a model.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bloomery import checkpoints, tasks
from bloomery.engines import deepspeed
from bloomery.engines.base import TextGenerationEngine
from djl_python.handler_options import HandlerOptions
from djl_python.inputs import Input
from djl_python.outputs import Output

_loaded: tuple[TextGenerationEngine, HandlerOptions] | None = None


def load(properties: Mapping[str, Any]) -> tuple[TextGenerationEngine, HandlerOptions]:
    """Fetch the checkpoint that the options name, and load it."""
    options = HandlerOptions.read(properties)
    engine = deepspeed.load(
        checkpoints.fetch(options.source, revision=options.revision),
        tensor_parallel=options.tensor_parallel,
        dtype=options.dtype,
        kernel_inject=options.kernel_inject,
        injection_policy=options.injection_policy,
        max_tokens=options.max_tokens,
        allreduce=options.allreduce,
        trust_remote_code=options.trust_remote_code,
    )
    return engine, options


def handle(inputs: Input) -> Output | None:
    """Load at the first call, which has no content; then answer."""
    global _loaded
    if _loaded is None:
        _loaded = load(inputs.get_properties())
    if inputs.is_empty():
        return None
    engine, options = _loaded
    return tasks.answer(engine, inputs, stream=options.enable_streaming)
