"""Requests in the OpenAI form over any engine: chats and completions, complete or streamed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bloomery.engines.base import TextGenerationEngine
from bloomery.errors import BadRequestError, UnsupportedModelError
from bloomery.formats import openai
from bloomery.formats.jsonlines import CONTENT_TYPE as JSONLINES
from bloomery.protocol import private
from bloomery.protocol.events import CONTENT_TYPE as EVENTS
from bloomery.protocol.events import Event, Failure, Finish, Token, encode_event
from bloomery.tasks.chat import render
from bloomery.tasks.fields import parse_json
from bloomery.tasks.openai_request import OpenAIRequest, is_openai, read_openai
from bloomery.tasks.request import GenerationRequest
from bloomery.tasks.text_generation import begun, generate
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


def answer(engine: TextGenerationEngine, inputs: Input, body: Mapping[str, Any], *, stream: bool = False) -> Output:
    """An OpenAI object; streamed, server-sent events where the client accepts them, else JSON lines as LMI has them.

    The server's own door asks for events instead and shapes them itself. ``stream`` is for who does not say.
    """
    raw = inputs.get_property(private.EVENTS) == "1"
    try:
        request = read_openai(body)
        events = continued(engine, request)
    except BadRequestError as error:
        refusal = Output().error(str(error), 400, "Bad Request")
        return refusal if error.param is None else refusal.add_property(private.PARAM, error.param)
    streams = request.stream if request.stream is not None else stream and not raw
    if raw:
        return _as_events(events, request, streams)
    shape = openai.Shape.of(body, _model_name(inputs, body))
    if streams:
        sse = openai.EVENT_STREAM in str(inputs.get_property("accept") or "")
        output = Output().add_property("content-type", openai.EVENT_STREAM if sse else JSONLINES)
        return output.add_stream_content(openai.streamed(events, shape, sse=sse), output_formatter=None)
    document = openai.document(events, shape)
    if isinstance(document, Failure):
        return Output().error(document.message, document.code)
    return Output().add_property("content-type", "application/json").add_as_json(document)


def continued(engine: TextGenerationEngine, request: OpenAIRequest) -> Iterator[Event]:
    """The events of the answer, the first of them already computed. An echoed prompt comes as a row's first text."""
    if engine.tokenizer is None:
        raise UnsupportedModelError(
            "The checkpoint brings no tokenizer, so no text can be continued: add tokenizer.json."
        )
    prompts = _prompt_ids(engine.tokenizer, request)
    parameters = replace(request.parameters, max_new_tokens=_new_tokens(engine, request, prompts))
    rows = [ids for ids in prompts for _ in range(request.copies)]
    events = begun(generate(engine, rows, GenerationRequest((), parameters)))
    return _echoed(events, _texts(engine.tokenizer, request)) if request.echo else events


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
    longest = max(map(len, prompts))
    room = engine.max_tokens - longest
    wanted = request.max_tokens or max(1, room)
    if wanted > room:
        remedy = f"lower max_tokens to {room} or less" if room > 0 else "shorten it"
        raise BadRequestError(
            f"{name} has {longest} tokens and max_tokens is {wanted}: together {longest + wanted}, more than the "
            f"{engine.max_tokens} that this model was loaded for (option.max_tokens); {remedy}."
        )
    return wanted


def _texts(tokenizer: Any, request: OpenAIRequest) -> list[str]:
    """What each row echoes."""
    texts = [each if isinstance(each, str) else str(tokenizer.decode(each)) for each in request.prompts]
    return [text for text in texts for _ in range(request.copies)]


def _echoed(events: Iterator[Event], texts: Sequence[str]) -> Iterator[Event]:
    prompts: Iterator[Event] = (Token(row, -1, text) for row, text in enumerate(texts))
    for event in itertools.chain(prompts, events):
        yield replace(event, text=texts[event.row] + event.text) if isinstance(event, Finish) else event


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
