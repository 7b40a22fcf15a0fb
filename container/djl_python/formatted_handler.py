"""A built-in handler between a model.py's own formatters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bloomery.protocol import private
from bloomery.protocol.events import Failure, Finish, decode_event
from bloomery.protocol.events import Token as TokenEvent
from djl_python.custom_code import CustomCode, Handler, accepts, in_turn
from djl_python.encode_decode import decode
from djl_python.inputs import Input
from djl_python.json_encoding import encode_json
from djl_python.outputs import Output, stream_chunks
from djl_python.request_io import RequestOutput, TextGenerationOutput, TextInput, Token

Formatter = Callable[..., Any]
_JSON = "application/json"


def formatted_handler(code: CustomCode, built_in: Handler) -> Handler:
    """``built_in``, whose requests pass ``code``'s input formatter and whose answers pass its output formatter."""
    streams = False

    def handle(inputs: Input) -> Any:
        nonlocal streams
        if inputs.is_empty():
            streams = str(inputs.get_property("enable_streaming") or "false").lower() != "false"
            return built_in(inputs)
        if inputs.is_batch():
            return in_turn(inputs, lambda item: _answer(code, built_in, item, False))
        return _answer(code, built_in, inputs, streams)

    return handle


def _answer(code: CustomCode, built_in: Handler, inputs: Input, streams: bool) -> Output:
    payload = _payload(code.input_formatter, inputs)
    request = Input()
    request.function_name = inputs.function_name
    request.properties = {
        name: value for name, value in inputs.properties.items() if name.lower() != "content-type"
    } | {"content-type": _JSON}
    formatter = code.output_formatter
    per_token = formatter is not None and accepts(formatter, (RequestOutput, TextGenerationOutput), ("request_output",))
    if per_token:
        request.properties[private.EVENTS] = "1"
    request.content.add("data", bytearray(encode_json(payload)))
    output: Output = built_in(request)
    if formatter is None or output.code >= 300:
        return output
    if per_token:
        return _per_token(output, formatter, payload, streams)
    return _per_answer(output, formatter)


def _payload(formatter: Formatter | None, inputs: Input) -> dict[str, Any]:
    """The body for the built-in handler."""
    if formatter is not None and accepts(formatter, (Input,), ("inputs", "input_item", "input")):
        made = formatter(inputs)
    else:
        made = decode(inputs, inputs.get_property("content-type"))
        made = formatter(made) if formatter is not None else made
    if isinstance(made, TextInput):
        parameters = dict(made.parameters)
        stream = {"stream": parameters.pop("stream")} if "stream" in parameters else {}
        return {"inputs": made.input_text, "parameters": parameters, **stream}
    if isinstance(made, dict):
        return made
    raise TypeError(f"the input formatter must return a TextInput or a dict, not {type(made).__name__}")


def _per_token(output: Output, formatter: Formatter, payload: dict[str, Any], streams: bool) -> Output:
    """The formatter's texts, one per token: as a stream, or together, prompt after prompt."""
    prompts = payload.get("inputs")
    prompts = prompts if isinstance(prompts, list) else [prompts]
    parameters = dict(payload.get("parameters") or {})
    texts = _texts(output, formatter, prompts, parameters)
    if payload.get("stream", streams) and len(prompts) == 1:
        return Output().add_stream_content((text for _row, text in texts), output_formatter=None)
    rows = [""] * len(prompts)
    for row, text in texts:
        rows[row] += text
    return Output().add("".join(rows))


def _texts(
    output: Output, formatter: Formatter, prompts: list[Any], parameters: dict[str, Any]
) -> Iterator[tuple[int, str]]:
    results = [
        TextGenerationOutput(row, TextInput(request_id=row, parameters=parameters, input_text=prompt))
        for row, prompt in enumerate(prompts)
    ]
    # Whether a token is the last one is known from the event that follows it: each waits for the next of its row.
    waiting: dict[int, TokenEvent] = {}
    for line in stream_chunks(output):
        event = decode_event(line)
        if isinstance(event, Failure):
            raise RuntimeError(event.message)
        result, before = results[event.row], waiting.pop(event.row, None)
        reason = event.reason if isinstance(event, Finish) else None
        if before is not None:
            result.finished = reason is not None
            token = Token(before.id, before.text, before.log_prob)
            result.set_next_token(token, is_last_token=result.finished, finish_reason=reason)
            yield event.row, str(formatter(result))
        if isinstance(event, TokenEvent):
            waiting[event.row] = event


def _per_answer(output: Output, formatter: Formatter) -> Output:
    """The formatter sees the parsed answer, or each parsed line of a stream; it may return JSON, text or bytes."""
    if output.stream_content is not None:
        lines = (_formatted(line, formatter) for line in stream_chunks(output))
        answer = Output(output.code, output.message)
        answer.properties = output.properties
        return answer.add_stream_content((line if line.endswith(b"\n") else line + b"\n" for line in lines), None)
    body = _formatted(bytes(output.content.value_at(0)), formatter)
    output.content.values[0] = body
    return output


def _formatted(data: bytes, formatter: Formatter) -> bytes:
    value = json.loads(data)
    made = [formatter(item) for item in value] if isinstance(value, list) else formatter(value)
    if isinstance(made, (bytes, bytearray)):
        return bytes(made)
    if isinstance(made, str):
        return made.encode("utf-8", "replace")
    return json.dumps(made, ensure_ascii=False).encode("utf-8", "backslashreplace")
