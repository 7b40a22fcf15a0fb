"""The built-in handler of engine=Python: plain transformers in one process that sees all devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bloomery import checkpoints, tasks
from bloomery.engines import accelerate
from bloomery.engines.base import TextGenerationEngine
from djl_python.handler_options import HandlerOptions
from djl_python.inputs import Input
from djl_python.outputs import Output

_loaded: tuple[TextGenerationEngine, HandlerOptions] | None = None


def load(properties: Mapping[str, Any]) -> tuple[TextGenerationEngine, HandlerOptions]:
    """Fetch the checkpoint that the options name, and load it."""
    options = HandlerOptions.read(properties)
    engine = accelerate.load(
        checkpoints.fetch(options.source, revision=options.revision),
        dtype=options.dtype,
        device_map=options.device_map,
        max_tokens=options.max_tokens,
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
