"""What the built-in handlers do alike: load at the first call, then answer."""

from __future__ import annotations

from collections.abc import Callable

from bloomery import tasks
from bloomery.engines.base import TextGenerationEngine
from djl_python.handler_options import HandlerOptions
from djl_python.inputs import Input
from djl_python.outputs import Output

Load = Callable[[HandlerOptions], TextGenerationEngine]


def handler(load: Load) -> Callable[[Input], Output | None]:
    """A ``handle`` function that calls ``load`` with the options of its first request, which has no content."""
    loaded: tuple[TextGenerationEngine, HandlerOptions] | None = None

    def handle(inputs: Input) -> Output | None:
        nonlocal loaded
        if loaded is None:
            options = HandlerOptions.read(inputs.get_properties())
            loaded = load(options), options
        if inputs.is_empty():
            return None
        engine, options = loaded
        return tasks.answer(engine, inputs, options.answers)

    return handle
