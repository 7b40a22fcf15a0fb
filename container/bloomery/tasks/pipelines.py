"""Every task but text generation: labels, fillings, spans. One request in, the pipeline's own result out.

``inputs`` is one item or a list of them, ``parameters`` are the pipeline's. An item is a text, or what the task says
below. One item is answered as transformers' pipeline answers it alone, a list with one result per item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery import formats
from bloomery.engines.base import PipelineEngine
from bloomery.errors import BadRequestError
from bloomery.protocol.events import Failure
from bloomery.tasks.body import read_body
from bloomery.tasks.fields import show, text
from bloomery.tasks.pipeline_parameters import TASK_PARAMETERS, Check
from djl_python import Input, Output

MAX_ITEMS = 512

_EXAMPLES = {
    "text-classification": '{"inputs": "I like you."}',
    "token-classification": '{"inputs": "My name is Sarah and I live in London."}',
    "fill-mask": '{"inputs": "Paris is the [MASK] of France."}',
    "question-answering": '{"inputs": {"question": "Where do I live?", "context": "I live in London."}}',
    "zero-shot-classification": '{"inputs": "I like you.", "parameters": {"candidate_labels": ["good", "bad"]}}',
    "feature-extraction": '{"inputs": "I like you."}',
}
_PAIRS = {"question-answering": ("question", "context"), "text-classification": ("text", "text_pair")}


@dataclass(frozen=True)
class PipelineRequest:
    """One checked request."""

    items: tuple[Any, ...]
    listed: bool
    parameters: dict[str, Any] = field(default_factory=dict)


def answer(engine: PipelineEngine, inputs: Input) -> Output:
    """The pipeline's result, or 400 with what is wrong with the request."""
    try:
        request = read_request(engine, inputs)
        results = engine.run(request.items, request.parameters)
    except BadRequestError as error:
        return Output().error(str(error), 400, "Bad Request")
    output = Output().add_property("content-type", "application/json")
    return output.add_as_json(_shaped(engine.task, request, results))


def answer_batch(engine: PipelineEngine, inputs: Input) -> Output:
    """The results of requests that the server joined; those with equal parameters run together. A refused one gets
    the error record as its own body."""
    items = inputs.get_batches()
    answers: dict[int, Any] = {}
    groups: list[dict[int, PipelineRequest]] = []
    for index, item in enumerate(items):
        try:
            request = read_request(engine, item)
        except BadRequestError as error:
            answers[index] = formats.error_record(Failure(400, str(error)))
            continue
        same = (group for group in groups if next(iter(group.values())).parameters == request.parameters)
        group = next(same, None)
        if group is None:
            groups.append({index: request})
        else:
            group[index] = request
    for group in groups:
        answers |= _run(engine, group)
    output = Output().add_property("content-type", "application/json")
    for index in range(len(items)):
        output.add_as_json(answers[index], batch_index=index)
    return output


def _run(engine: PipelineEngine, group: Mapping[int, PipelineRequest]) -> dict[int, Any]:
    parameters = next(iter(group.values())).parameters
    try:
        results = iter(engine.run([item for request in group.values() for item in request.items], parameters))
    except BadRequestError as error:
        return dict.fromkeys(group, formats.error_record(Failure(400, str(error))))
    return {
        index: _shaped(engine.task, request, [next(results) for _ in request.items]) for index, request in group.items()
    }


def read_request(engine: PipelineEngine, inputs: Input) -> PipelineRequest:
    """The request in ``inputs``, checked for the engine's task before anything is computed."""
    task = engine.task
    example = _EXAMPLES[task]
    body = read_body(inputs, example)
    if body.stream:
        raise BadRequestError(f"stream is true: {task} has one answer and no stream; leave it out, as in {example}.")
    given = body.inputs if body.text is None else body.text
    listed = isinstance(given, list)
    entries = given if listed else [given]
    if not entries:
        raise BadRequestError(f"inputs is an empty list: it must hold at least one item, for example {example}.")
    if len(entries) > MAX_ITEMS:
        raise BadRequestError(f"inputs holds {len(entries)} items: at most {MAX_ITEMS} fit one request; send several.")
    names = [f"inputs[{index}]" if listed else "inputs" for index in range(len(entries))]
    items = tuple(_item(task, name, entry) for name, entry in zip(names, entries, strict=True))
    parameters = _parameters(task, body.parameters)
    truncates = parameters.pop("truncation", False)
    for name, item in zip(names, items, strict=True):
        _check(engine, name, item, truncates)
    if truncates:
        cut = {"truncation": True, "max_length": engine.max_tokens}
        parameters |= {"tokenizer_kwargs": cut} if task == "fill-mask" else cut
    return PipelineRequest(items, listed, parameters)


def _item(task: str, name: str, value: object) -> Any:
    """One checked item: a text, or the two texts of a pair."""
    pair = _PAIRS.get(task)
    if pair is None or (task != "question-answering" and isinstance(value, str)):
        return _filled(name, value)
    if not isinstance(value, dict) or set(value) != set(pair):
        raise BadRequestError(
            f"{name} is {show(value)}: {task} takes an object with {pair[0]} and {pair[1]}"
            f"{'' if task == 'question-answering' else ', or a text'}, for example {_EXAMPLES[task]}."
        )
    return {part: _filled(f"{name}.{part}", value[part]) for part in pair}


def _filled(name: str, value: object) -> str:
    found = text(name, value)
    if not found.strip():
        raise BadRequestError(f"{name} is an empty text: there is nothing to work on.")
    return found


def _check(engine: PipelineEngine, name: str, item: Any, truncates: bool) -> None:
    if engine.task == "fill-mask" and engine.mask_token is not None and engine.mask_token not in item:
        raise BadRequestError(
            f"{name} has no {engine.mask_token}: put it where a word shall be filled in, for example "
            f'{{"inputs": "Paris is the {engine.mask_token} of France."}}.'
        )
    if engine.task in ("question-answering", "zero-shot-classification") or truncates:
        return  # their pipelines cut by themselves
    tokens = engine.count_tokens(item)
    if tokens > engine.max_tokens:
        can_cut = "truncation" in TASK_PARAMETERS[engine.task]
        raise BadRequestError(
            f"{name} has {tokens} tokens, more than the {engine.max_tokens} that this model reads: shorten it"
            + (', or send "parameters": {"truncation": true} to have its end cut.' if can_cut else ".")
        )


def _parameters(task: str, settings: Mapping[str, object]) -> dict[str, Any]:
    """The checked parameters. null means: the default."""
    checks: Mapping[str, Check] = TASK_PARAMETERS[task]
    known: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in checks:
            raise BadRequestError(f"Unknown parameter {name!r}: {task} takes {', '.join(checks)}.")
        if value is not None:
            known[name] = checks[name](f"parameters.{name}", value)
    if task == "zero-shot-classification" and "candidate_labels" not in known:
        raise BadRequestError(
            f"parameters.candidate_labels is missing: it names what to choose from, for example {_EXAMPLES[task]}."
        )
    return known


def _shaped(task: str, request: PipelineRequest, results: list[Any]) -> Any:
    if request.listed:
        return results
    # The pipeline answers a single text with a list, unless it was told how many labels to give.
    single_label = task == "text-classification" and "top_k" not in request.parameters
    return results if single_label and isinstance(request.items[0], str) else results[0]
