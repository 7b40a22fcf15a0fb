"""The answers of the OpenAI form: chat.completion, text_completion, and the chunks that stream them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.protocol.events import Event, Failure, Finish, FinishReason, Token

EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/jsonlines"
DONE = b"data: [DONE]\n\n"

_REASONS: dict[FinishReason, str] = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
# What a client's library makes an exception class of is the status; type and code are for people and their programs.
_ERROR_TYPES = {429: "rate_limit_error", 400: "invalid_request_error", 404: "invalid_request_error"}
_ERROR_CODES = {429: "rate_limit_exceeded", 503: "service_unavailable"}


@dataclass(frozen=True)
class Shape:
    """What decides how an answer looks, beside its events. Row r continues prompt r // ``copies``."""

    chat: bool
    model: str
    identifier: str
    created: int  # seconds since 1970
    copies: int = 1
    log_probs: bool = False
    include_usage: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any], model: str) -> Shape:
        """The shape that a request asks for, whose body has been found correct (tasks.openai_request)."""
        chat = "messages" in body
        log_probs = body.get("logprobs")
        return cls(
            chat=chat,
            model=model,
            identifier=("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex,
            created=int(time.time()),
            copies=body.get("n") or 1,
            log_probs=log_probs is not None and log_probs is not False,
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )

    def envelope(self, choices: list[dict[str, Any]], *, chunk: bool) -> dict[str, Any]:
        """The object around ``choices``."""
        kind = ("chat.completion" if self.chat else "text_completion") + (".chunk" if self.chat and chunk else "")
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


@dataclass
class _Usage:
    """A prompt that is continued several times counts once, as OpenAI counts it."""

    copies: int
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, finish: Finish) -> None:
        self.completion_tokens += finish.generated_tokens
        if finish.row % self.copies == 0:
            self.prompt_tokens += finish.prompt_tokens

    def record(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


@dataclass
class _Row:
    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None


def document(events: Iterable[Event], shape: Shape) -> dict[str, Any] | Failure:
    """The complete answer; the Failure, when there was one."""
    rows: dict[int, _Row] = {}
    usage = _Usage(shape.copies)
    for event in events:
        if (failure := failure_in(event)) is not None:
            return failure
        if isinstance(event, Token) and shape.log_probs:
            rows.setdefault(event.row, _Row()).tokens.append(event)
        elif isinstance(event, Finish):
            rows.setdefault(event.row, _Row()).finish = event
            usage.add(event)
    choices = [_choice(index, row, shape) for index, row in sorted(rows.items())]
    return {**shape.envelope(choices, chunk=False), "usage": usage.record()}


def _choice(index: int, row: _Row, shape: Shape) -> dict[str, Any]:
    text = row.finish.text if row.finish else ""
    content: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text, "refusal": None}} if shape.chat else {"text": text}
    )
    return {
        "index": index,
        **content,
        "logprobs": _log_probs(row.tokens, 0, shape),
        "finish_reason": _REASONS[row.finish.reason] if row.finish else None,
    }


def _log_probs(tokens: list[Token], offset: int, shape: Shape) -> dict[str, Any] | None:
    """``offset``: characters of the text before these tokens. A token's text is what it added, perhaps nothing."""
    if not shape.log_probs:
        return None
    if shape.chat:
        return {
            "content": [
                {"token": each.text, "logprob": each.log_prob, "bytes": list(each.text.encode()), "top_logprobs": []}
                for each in tokens
            ],
            "refusal": None,
        }
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.text)
    return {
        "tokens": [each.text for each in tokens],
        "token_logprobs": [each.log_prob for each in tokens],
        "top_logprobs": None,
        "text_offset": offsets,
    }


def failure_in(event: Event) -> Failure | None:
    """The failure that ``event`` tells of; a row that was cut short is one, and never passed off as complete."""
    if isinstance(event, Finish) and event.reason not in _REASONS:
        return Failure(503, f"the generation was cut short ({event.reason})")
    return event if isinstance(event, Failure) else None


class Chunks:
    """The chunks of one streamed answer, made event by event."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._usage = _Usage(shape.copies)
        self._lengths: dict[int, int] = {}  # characters so far, by row

    def of(self, event: Token | Finish) -> list[dict[str, Any]]:
        """What this event adds: nothing for half a character."""
        chunks = [] if event.row in self._lengths else self._opening(event.row)
        if isinstance(event, Token):
            if event.text or self._shape.log_probs:
                log_probs = _log_probs([event], self._lengths[event.row], self._shape)
                chunks.append(self._chunk(event.row, event.text, log_probs, None))
            self._lengths[event.row] += len(event.text)
        else:
            self._usage.add(event)
            chunks.append(self._chunk(event.row, None, None, _REASONS[event.reason]))
        return chunks

    def ending(self) -> list[dict[str, Any]]:
        """What follows the last event: the usage, when it was asked for."""
        if not self._shape.include_usage:
            return []
        return [{**self._shape.envelope([], chunk=True), "usage": self._usage.record()}]

    def _opening(self, row: int) -> list[dict[str, Any]]:
        self._lengths[row] = 0
        return [self._chunk(row, "", None, None, role="assistant")] if self._shape.chat else []

    def _chunk(
        self, row: int, text: str | None, log_probs: dict[str, Any] | None, reason: str | None, **delta: str
    ) -> dict[str, Any]:
        if text is not None:
            delta["content"] = text
        content: dict[str, Any] = {"delta": delta} if self._shape.chat else {"text": text or ""}
        choice = {"index": row, **content, "logprobs": log_probs, "finish_reason": reason}
        chunk = self._shape.envelope([choice], chunk=True)
        return {**chunk, "usage": None} if self._shape.include_usage else chunk


def streamed(events: Iterable[Event], shape: Shape, *, sse: bool) -> Iterator[bytes]:
    """The whole stream, as server-sent events or as JSON lines; a failure is its last record."""
    write = sse_record if sse else json_line
    chunks = Chunks(shape)
    for event in events:
        if (failure := failure_in(event)) is not None:
            yield write(error_object(failure.code, failure.message))
            return
        assert not isinstance(event, Failure)
        for chunk in chunks.of(event):
            yield write(chunk)
    for chunk in chunks.ending():
        yield write(chunk)
    if sse:
        yield DONE


def sse_record(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def json_line(content: Mapping[str, Any]) -> bytes:
    """One line of application/jsonlines."""
    return json.dumps(content).encode() + b"\n"


def error_object(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """``{"error": {...}}``; ``param`` names the field that is to blame."""
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status in range(400, 424) else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _ERROR_CODES.get(status)}}
