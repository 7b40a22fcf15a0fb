"""The built-in handler of engine=Python: plain transformers in one process that sees all devices."""

from __future__ import annotations

from bloomery import checkpoints, tasks
from bloomery.engines import accelerate
from bloomery.engines.base import TextGenerationEngine
from djl_python.handler_options import HandlerOptions
from djl_python.inputs import Input
from djl_python.outputs import Output

_loaded: tuple[TextGenerationEngine, HandlerOptions] | None = None


def handle(inputs: Input) -> Output | None:
    """Load at the first call, which has no content; then answer."""
    global _loaded
    if _loaded is None:
        options = HandlerOptions.read(inputs.get_properties())
        path = checkpoints.fetch(options.source, revision=options.revision)
        engine = accelerate.load(
            path, dtype=options.dtype, device_map=options.device_map, max_tokens=options.max_tokens
        )
        _loaded = engine, options
    if inputs.is_empty():
        return None
    engine, options = _loaded
    return tasks.answer(engine, inputs, stream=options.enable_streaming)
