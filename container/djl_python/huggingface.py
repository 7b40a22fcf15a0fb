"""The built-in handler of engine=Python: plain transformers in one process that sees all devices."""

from __future__ import annotations

from bloomery import checkpoints
from bloomery.engines import accelerate
from bloomery.engines.base import TextGenerationEngine
from djl_python.builtin_handler import handler
from djl_python.handler_options import HandlerOptions


def load(options: HandlerOptions) -> TextGenerationEngine:
    """Fetch the checkpoint that the options name, and load it."""
    return accelerate.load(
        checkpoints.locate(
            options.source,
            revision=options.revision,
            load_format=options.load_format,
            allow_pickle=options.allow_pickle,
        ),
        dtype=options.dtype,
        device_map=options.device_map,
        max_tokens=options.max_tokens,
        trust_remote_code=options.trust_remote_code,
        chat_template=options.chat_template,
        task=options.task,
    )


handle = handler(load)
