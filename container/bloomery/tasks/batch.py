"""Several clients' requests that the server joined into one call (``batch_size`` in serving.properties).

Requests with equal parameters are continued together. One status line is all that a batch has, so a request that is
refused gets the error record as its own body, and does not spoil the others' answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bloomery import formats
from bloomery.engines.base import TextGenerationEngine
from bloomery.errors import BadRequestError
from bloomery.protocol.events import Failure
from bloomery.tasks import openai
from bloomery.tasks.options import AnswerOptions
from bloomery.tasks.request import GenerationRequest, read_request
from bloomery.tasks.text_generation import check_prompts, describe, generate, tokenise
from djl_python import Input, Output


@dataclass
class _Group:
    """Requests that one call of the engine continues."""

    indices: list[int] = field(default_factory=list)
    requests: list[GenerationRequest] = field(default_factory=list)
    prompt_ids: list[list[int]] = field(default_factory=list)


def answer(engine: TextGenerationEngine, inputs: Input, options: AnswerOptions) -> Output:
    """One answer, or one error record, per joined request. A batch cannot be streamed."""
    items = inputs.get_batches()
    answers: dict[int, Any] = {}
    groups: list[_Group] = []
    for index, item in enumerate(items):
        try:
            if (body := openai.body_of(item)) is not None:
                whole = openai.complete(engine, item, body, options)
                answers[index] = formats.error_record(whole) if isinstance(whole, Failure) else whole
                continue
            request = read_request(item, options)
            check_prompts(request, options.style, streams=False)
            prompt_ids = tokenise(engine, request)
        except BadRequestError as error:
            answers[index] = _refusal(error)
            continue
        group = _group_for(request, groups)
        group.indices.append(index)
        group.requests.append(request)
        group.prompt_ids += prompt_ids
    for group in groups:
        try:
            answers.update(zip(group.indices, _continue(engine, group, options.style), strict=True))
        except BadRequestError as error:
            answers.update(dict.fromkeys(group.indices, _refusal(error)))
    output = Output().add_property("content-type", options.style.content_type)
    for index in range(len(items)):
        output.add(answers[index], batch_index=index)
    return output


def _group_for(request: GenerationRequest, groups: list[_Group]) -> _Group:
    """The group with the same parameters, or a new one. A seed promises the same text again, so it stays alone."""
    if request.parameters.seed is None:
        for group in groups:
            if group.requests[0].parameters == request.parameters:
                return group
    groups.append(_Group())
    return groups[-1]


def _continue(engine: TextGenerationEngine, group: _Group, style: formats.Style) -> list[Any]:
    """The answer of each request of the group."""
    prompts = tuple(prompt for request in group.requests for prompt in request.prompts)
    joined = GenerationRequest(prompts, group.requests[0].parameters)
    rows = formats.gather(generate(engine, group.prompt_ids, joined), len(prompts))
    if isinstance(rows, Failure):
        return [formats.error_record(rows)] * len(group.requests)
    answers, start = [], 0
    for request in group.requests:
        end = start + len(request.prompts)
        answers.append(formats.complete_answer(rows[start:end], describe(engine, request, style), style))
        start = end
    return answers


def _refusal(error: BadRequestError) -> dict[str, Any]:
    return formats.error_record(Failure(400, str(error)))
