"""The built-in handler of engine=DeepSpeed: a checkpoint split over the ranks, without a model.py."""

from __future__ import annotations

from bloomery import checkpoints
from bloomery.engines import deepspeed
from bloomery.engines.base import TextGenerationEngine
from djl_python.builtin_handler import handler
from djl_python.handler_options import HandlerOptions


def load(options: HandlerOptions) -> TextGenerationEngine:
    """Fetch the checkpoint that the options name, and load it."""
    return deepspeed.load(
        checkpoints.locate(
            options.source,
            revision=options.revision,
            load_format=options.load_format,
            allow_pickle=options.allow_pickle,
        ),
        tensor_parallel=options.tensor_parallel,
        dtype=options.dtype,
        kernel_inject=options.kernel_inject,
        injection_policy=options.injection_policy,
        max_tokens=options.max_tokens,
        allreduce=options.allreduce,
        trust_remote_code=options.trust_remote_code,
        chat_template=options.chat_template,
        task=options.task,
    )


handle = handler(load)
