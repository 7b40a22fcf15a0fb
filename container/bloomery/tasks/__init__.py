"""What can be asked of a loaded model. ``answer(engine, inputs)`` is what a handler calls."""

from bloomery.engines.base import PipelineEngine, TextGenerationEngine
from bloomery.tasks import batch, conversational, openai, pipelines, text_generation
from bloomery.tasks.options import AnswerOptions
from djl_python import Input, Output

__all__ = ["AnswerOptions", "answer"]


def answer(
    engine: TextGenerationEngine | PipelineEngine,
    inputs: Input,
    options: AnswerOptions | None = None,
    *,
    stream: bool = False,
) -> Output:
    """Answer one request, or several that the server joined, by what the engine was loaded for.

    ``options`` are the answer's style and the requests' defaults; ``stream`` is short for an AnswerOptions that says
    only whether a request is streamed that does not say itself.
    """
    chosen = AnswerOptions(stream=stream) if options is None else options
    if isinstance(engine, PipelineEngine):
        return pipelines.answer_batch(engine, inputs) if inputs.is_batch() else pipelines.answer(engine, inputs)
    if not inputs.is_batch() and (body := openai.body_of(inputs)) is not None:
        return openai.answer(engine, inputs, body, chosen)
    if chosen.conversational:
        converse = conversational.answer_batch if inputs.is_batch() else conversational.answer
        return converse(engine, inputs, chosen)
    if inputs.is_batch():
        return batch.answer(engine, inputs, chosen)
    return text_generation.answer(engine, inputs, chosen)
