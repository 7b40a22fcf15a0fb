"""What can be asked of a loaded model. ``answer(engine, inputs)`` is what a handler calls."""

from bloomery.engines.base import TextGenerationEngine
from bloomery.tasks import batch, openai, text_generation
from djl_python import Input, Output

__all__ = ["answer"]


def answer(engine: TextGenerationEngine, inputs: Input, *, stream: bool = False) -> Output:
    """Continue the prompts of one request, or of several that the server joined.

    ``stream`` is what a request gets that does not say whether it wants to be streamed.
    """
    if inputs.is_batch():
        return batch.answer(engine, inputs)
    if (body := openai.body_of(inputs)) is not None:
        return openai.answer(engine, inputs, body, stream=stream)
    return text_generation.answer(engine, inputs, stream=stream)
