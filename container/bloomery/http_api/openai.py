"""The OpenAI door: chats and completions of any model, in the form that OpenAI's clients send and read.

Our own workers answer with typed events, which are shaped here (``formats.openai``). A handler of the user's own that
knows nothing of them answers what it likes, and that passes unchanged.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

from aiohttp import hdrs, web

from bloomery.errors import (
    BadRequestError,
    ModelNotFoundError,
    ProtocolError,
    RequestError,
    ServiceUnavailableError,
    StreamError,
)
from bloomery.formats import openai
from bloomery.http_api import response
from bloomery.http_api.request import model_name
from bloomery.protocol import private
from bloomery.protocol.events import CONTENT_TYPE as EVENTS
from bloomery.protocol.events import Event, Failure, decode_event
from bloomery.protocol.frames import Request, property_of
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry
from bloomery.workers.answer import Answer

Read = Callable[[web.Request], Awaitable[Request]]
Submit = Callable[[web.Request, Model, Request, Callable[[Answer], Answer]], Awaitable[web.StreamResponse]]
_MOST_VALUES = 2**20  # of a request's JSON document: a prompt of a million tokens, or 0.2 s at worst
_EXAMPLES = {
    "messages": '{"model": "NAME", "messages": [{"role": "user", "content": "Who goes there?"}]}',
    "prompt": '{"model": "NAME", "prompt": "To be, or not", "max_tokens": 30}',
}


class Door:
    """``read`` makes an HTTP request the worker's; ``submit`` has it answered, and the answer changed on its way."""

    def __init__(self, registry: Registry, read: Read, submit: Submit) -> None:
        self._registry, self._read, self._submit = registry, read, submit

    async def chat(self, http: web.Request) -> web.StreamResponse:
        """Continue a chat."""
        return await self._answer("messages", http)

    async def completions(self, http: web.Request) -> web.StreamResponse:
        """Continue prompts."""
        return await self._answer("prompt", http)

    async def models(self, _: web.Request) -> web.StreamResponse:
        """What is served."""
        return response.document({"object": "list", "data": [_model_object(name) for name in self._names()]})

    async def model(self, http: web.Request) -> web.StreamResponse:
        """One of them."""
        name = http.match_info["model"]
        if name not in self._names():
            raise ModelNotFoundError(f"The model {name!r} is not served here; GET /v1/models lists what is.")
        return response.document(_model_object(name))

    async def _answer(self, field: str, http: web.Request) -> web.StreamResponse:
        question = await self._read(http)
        body = _parse(question, field)
        model = self._chosen(http, body, question)
        question.properties[private.EVENTS] = "1"  # of no meaning to a handler that is not ours
        return await self._submit(http, model, question, lambda answer: shaped(answer, body, model.name))

    def _chosen(self, http: web.Request, body: dict[str, Any], question: Request) -> Model:
        """The model that the body names. A server of one model takes any name for it, as DJLServing does."""
        named = body.get("model") or model_name(http, question.content, question.properties)
        if named is not None and not isinstance(named, str):
            error = BadRequestError(f"model is {json.dumps(named)[:80]}: it must be a name; GET /v1/models lists them.")
            error.param = "model"
            raise error
        names = self._names()
        if len(names) == 1:
            return self._registry.get(names[0])
        if named and named not in names:
            raise ModelNotFoundError(f"The model {named!r} is not served here; there are {', '.join(names) or 'none'}.")
        return self._registry.get(named)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(model.name for model in self._registry.models()))


def _model_object(name: str) -> dict[str, object]:
    """A model has no date of birth here."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "bloomery"}


def _parse(question: Request, field: str) -> dict[str, Any]:
    """The body; ``field`` is what makes it one of this route."""
    raw = next((data for key, data in question.content if key == "data"), b"")
    _refuse_too_many_values(raw)
    try:
        body = json.loads(raw)
    except RecursionError as error:
        raise BadRequestError("The body is JSON nested too deeply to be a request.") from error
    except ValueError as error:
        raise BadRequestError(f"The body is not JSON ({error}), for example {_EXAMPLES[field]}.") from error
    if not isinstance(body, dict):
        raise BadRequestError(f"The body must be a JSON object, for example {_EXAMPLES[field]}.")
    if field not in body:
        missing = BadRequestError(f"The body has no field {field!r}, for example {_EXAMPLES[field]}.")
        missing.param = field
        raise missing
    return body


def _refuse_too_many_values(raw: bytes) -> None:
    """Refuse what would hold up the event loop: json.loads keeps the interpreter to itself, in a thread too.

    It takes 0.1 µs and 60 bytes of memory for each value ([[],[],[],... has 21 million in 64 MB), and next to nothing
    for a text, however long. So what counts is how many values there may be; commas inside of texts count too.
    """
    if len(raw) <= _MOST_VALUES:
        return
    count = sum(raw.count(mark) for mark in (b",", b"[", b"{"))
    if count > _MOST_VALUES:
        raise BadRequestError(
            f"The body has about {count} values; a request may have {_MOST_VALUES}. Send long prompts as text."
        )


def shaped(answer: Answer, body: dict[str, Any], model: str) -> Answer:
    """A worker's answer as OpenAI's client reads it."""
    if property_of(answer.properties, "content-type") != EVENTS:
        return _refusal(answer) or answer
    shape = openai.Shape.of(body, model)
    if answer.stream is not None:
        properties = {**answer.properties, "content-type": openai.EVENT_STREAM}
        return replace(answer, properties=properties, stream=_records(answer.stream, shape))
    try:
        document = openai.document(_events(answer), shape)
    except ProtocolError as error:
        document = Failure(500, f"the handler's events cannot be read: {error}")
    if isinstance(document, Failure):
        return _json(answer, document.code, openai.error_object(document.code, document.message))
    return _json(answer, answer.code, document)


def _json(answer: Answer, code: int, content: dict[str, Any]) -> Answer:
    properties = {**answer.properties, "content-type": "application/json"}
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return replace(answer, code=code, properties=properties, content=[("data", body)], stream=None)


def _refusal(answer: Answer) -> Answer | None:
    """The worker library's own error document in OpenAI's form; None for whatever else a handler answers."""
    if answer.code < 400 or answer.stream is not None or not answer.content:
        return None
    try:
        fields = json.loads(answer.content[0][1])
        message, code = fields["error"], fields["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if code != answer.code or not isinstance(message, str):
        return None
    # 424 is DJLServing's word for a handler that failed; OpenAI's clients know it as the server's fault.
    status = 500 if answer.code == 424 else answer.code
    param, reason = property_of(answer.properties, private.PARAM), property_of(answer.properties, private.REASON_CODE)
    return _json(answer, status, openai.error_object(status, message, param, reason))


def _events(answer: Answer) -> Iterator[Event]:
    return (decode_event(line) for _, data in answer.content for line in data.splitlines())


async def _records(pieces: AsyncIterator[bytes], shape: openai.Shape) -> AsyncIterator[bytes]:
    """Server-sent events, as the worker's come in. The record of a failure travels with the error that ends it."""
    chunks = openai.Chunks(shape)
    rest = b""
    try:
        async for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            if records := b"".join(_record(chunks, line) for line in lines):
                yield records
    except (StreamError, ProtocolError) as error:
        status = error.status if isinstance(error, StreamError) and error.status != 424 else 500
        record = openai.sse_record(openai.error_object(status, str(error)))
        raise StreamError(str(error), status, record) from error
    yield b"".join(map(openai.sse_record, chunks.ending())) + openai.DONE


def _record(chunks: openai.Chunks, line: bytes) -> bytes:
    event = decode_event(line)
    if (failure := openai.failure_in(event)) is not None:
        raise StreamError(failure.message, failure.code)
    assert not isinstance(event, Failure)
    return b"".join(map(openai.sse_record, chunks.of(event)))


def of_error(error: RequestError) -> web.Response:
    """OpenAI's error document."""
    status, param, code = error.status, getattr(error, "param", None), None
    if isinstance(error, ModelNotFoundError):
        param, code = "model", "model_not_found"
    answer = response.document(openai.error_object(status, str(error), param, code), status)
    if isinstance(error, ServiceUnavailableError):
        answer.headers[hdrs.RETRY_AFTER] = response.RETRY_AFTER
    return answer
