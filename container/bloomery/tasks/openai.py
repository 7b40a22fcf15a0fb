"""Requests in the OpenAI form over any engine: chats and completions, complete or streamed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bloomery.engines.base import TextGenerationEngine
from bloomery.errors import BadRequestError
from bloomery.formats import openai
from bloomery.protocol import private
from bloomery.protocol.events import CONTENT_TYPE as EVENTS
from bloomery.protocol.events import Event, Failure, Finish, Token, encode_event
from bloomery.tasks.chat import render
from bloomery.tasks.fields import parse_json
from bloomery.tasks.openai_request import OpenAIRequest, is_openai, read_openai
from bloomery.tasks.options import AnswerOptions
from bloomery.tasks.request import NO_OPTIONS, GenerationRequest
from bloomery.tasks.text_generation import begun, generate, tokenizer_of
from djl_python import Input, Output

_EXAMPLE = '{"prompt": "To be, or not", "max_tokens": 30}'


def body_of(inputs: Input) -> dict[str, Any] | None:
    """The body, when it is of the OpenAI form."""
    raw = bytes(inputs.get_as_bytes() or b"")
    if b'"messages"' not in raw and b'"prompt"' not in raw:
        return None  # most requests: not worth reading twice
    try:
        body = parse_json(raw, _EXAMPLE)
    except BadRequestError:
        return None  # whoever reads it for its own form says what is wrong with it
    return body if isinstance(body, dict) and is_openai(body) else None


def answer(
    engine: TextGenerationEngine, inputs: Input, body: Mapping[str, Any], options: AnswerOptions = NO_OPTIONS
) -> Output:
    """An OpenAI object; streamed, JSON lines as LMI has them, or server-sent events where the client accepts them.

    The server's own door asks for events instead and shapes them itself.
    """
    raw = inputs.get_property(private.EVENTS) == "1"
    try:
        request = read_openai(body)
        events = continued(engine, request, options)
    except BadRequestError as error:
        return _refusal(error, raw)
    streams = request.stream if request.stream is not None else options.stream and not raw
    if raw:
        return _as_events(events, request, streams)
    shape = openai.Shape.of(body, _model_name(inputs, body))
    if streams:
        accepted = (str(inputs.get_property("accept") or ""), options.style.stream_content_type)
        sse = any(openai.EVENT_STREAM in types for types in accepted)
        output = Output().add_property("content-type", openai.EVENT_STREAM if sse else openai.JSON_LINES)
        return output.add_stream_content(openai.streamed(events, shape, sse=sse), output_formatter=None)
    document = openai.document(events, shape)
    if isinstance(document, Failure):
        return Output().error(document.message, document.code)
    return Output().add_property("content-type", "application/json").add_as_json(document)


def complete(
    engine: TextGenerationEngine, inputs: Input, body: Mapping[str, Any], options: AnswerOptions
) -> dict[str, Any] | Failure:
    """The answer to one of several requests that the server joined; a BadRequestError says what is wrong with it."""
    events = continued(engine, read_openai(body), options)
    return openai.document(events, openai.Shape.of(body, _model_name(inputs, body)))


def continued(engine: TextGenerationEngine, request: OpenAIRequest, options: AnswerOptions) -> Iterator[Event]:
    """The events of the answer, the first of them already computed. An echoed prompt comes as a row's first text."""
    tokenizer = tokenizer_of(engine)
    prompts = _prompt_ids(tokenizer, request)
    parameters = replace(
        request.parameters,
        max_new_tokens=_new_tokens(engine, request, prompts),
        stop_sequences=request.parameters.stop_sequences or options.stop_sequences,
    )
    rows = [ids for ids in prompts for _ in range(request.copies)]
    events = begun(generate(engine, rows, GenerationRequest((), parameters)))
    return _echoed(events, _texts(tokenizer, request)) if request.echo else events


def _prompt_ids(tokenizer: Any, request: OpenAIRequest) -> list[list[int]]:
    if request.chat:
        # A template writes the special tokens itself.
        text = render(tokenizer, request.messages)
        return [list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])]
    return [
        prompt if isinstance(prompt, list) else list(tokenizer(prompt, verbose=False)["input_ids"])
        for prompt in request.prompts
    ]


def _new_tokens(engine: TextGenerationEngine, request: OpenAIRequest, prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens to make: what was asked for, or all there is room for."""
    name = "The chat" if request.chat else "The prompt"
    if not all(prompts):
        raise BadRequestError(f"{name} has no tokens: there is nothing to continue.")
    # An encoder-decoder counts its prompt and its text apart.
    longest = 0 if engine.encoder_decoder else max(map(len, prompts))
    room = engine.max_tokens - longest
    wanted = request.max_tokens or max(1, room)
    if wanted > room:
        remedy = f"lower max_tokens to {room} or less" if room > 0 else "shorten it"
        error = BadRequestError(
            f"{name} has {longest} tokens and max_tokens is {wanted}: together {longest + wanted}, more than the "
            f"{engine.max_tokens} that this model was loaded for (option.max_tokens); {remedy}."
        )
        error.param, error.reason_code = "messages" if request.chat else "prompt", "context_length_exceeded"
        raise error
    return wanted


def _texts(tokenizer: Any, request: OpenAIRequest) -> list[str]:
    """What each row echoes."""
    texts = [each if isinstance(each, str) else str(tokenizer.decode(each)) for each in request.prompts]
    return [text for text in texts for _ in range(request.copies)]


def _echoed(events: Iterator[Event], texts: Sequence[str]) -> Iterator[Event]:
    prompts: Iterator[Event] = (Token(row, -1, text) for row, text in enumerate(texts))
    for event in itertools.chain(prompts, events):
        yield replace(event, text=texts[event.row] + event.text) if isinstance(event, Finish) else event


def _refusal(error: BadRequestError, raw: bool) -> Output:
    """DJLServing's error document; what it has no room for goes to the door, and to nobody else, beside it."""
    refusal = Output().error(str(error), 400, "Bad Request")
    if not raw:
        return refusal
    for name, value in ((private.PARAM, error.param), (private.REASON_CODE, error.reason_code)):
        if value is not None:
            refusal.add_property(name, value)
    return refusal


def _as_events(events: Iterator[Event], request: OpenAIRequest, streams: bool) -> Output:
    """For the door: one by one, or all at once, so that the status tells of a failure at any token."""
    output = Output().add_property("content-type", EVENTS)
    if streams:
        return output.add_stream_content((encode_event(event) for event in events), output_formatter=None)
    kept = [event for event in events if request.log_probs or not isinstance(event, Token)]
    return output.add(b"".join(encode_event(event) for event in kept))


def _model_name(inputs: Input, body: Mapping[str, Any]) -> str:
    """The model's name at our server. A foreign one keeps it to itself: then the client's, or the directory's."""
    directory = Path(str(inputs.get_property("model_dir") or "model"))
    names = (os.environ.get(private.MODEL_NAME), body.get("model"), directory.name)
    return next(name for name in names if isinstance(name, str) and name)
