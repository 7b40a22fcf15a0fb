"""Shapes generated text for clients, token by token; also where handlers import the mark for their own from.

A formatter is called once per token and takes it from the sequence by ``get_next_token``; what it returns, all calls
together, is the answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from djl_python.marks import output_formatter
from djl_python.request_io import RequestInput, RequestOutput, Sequence, TextGenerationOutput, TextInput, Token

__all__ = [
    "RequestInput",
    "RequestOutput",
    "Sequence",
    "TextGenerationOutput",
    "TextInput",
    "Token",
    "get_output_formatter",
    "output_formatter",
]

logger = logging.getLogger("djl_python.output_formatter")

OutputFormatter = Callable[[TextGenerationOutput], str]


def get_output_formatter(
    formatter: str | Callable[..., str] | None, stream: bool, tgi_compat: bool = False
) -> tuple[Callable[..., str] | None, str | None]:
    """The formatter of that name, and the Content-Type of what it makes; without a name, what suits ``stream``."""
    if callable(formatter):
        return formatter, None
    if formatter == "none":
        return None, "text/plain"
    named: dict[str, tuple[OutputFormatter, str]] = {
        "json": (_json, "application/json"),
        "jsonlines": (_jsonlines, "application/jsonlines"),
        "sse": (_sse, "text/event-stream"),
    }
    if formatter is not None and formatter not in named:
        logger.warning("there is no output formatter %r; there are json, jsonlines, sse and none", formatter)
        formatter = None
    return named[formatter or ("json" if not stream else "sse" if tgi_compat else "jsonlines")]


def _json(output: TextGenerationOutput) -> str:
    """One object, written as its text comes: ``{"generated_text": "…", "details": {…}}``; a list of it for TGI."""
    sequence, request = _sequence(output), output.input
    token, first, last = sequence.get_next_token()
    text = ""
    if first:
        prompt = _prompt(output) if request.parameters.get("return_full_text") else ""
        text = ("[" if request.tgi_compat else "") + '{"generated_text": "' + _escaped(prompt)
    text += _escaped(token.text if token else "")
    if last:
        details = _details(output, sequence, with_tokens=True)
        text += '"' + (f', "details": {json.dumps(details, ensure_ascii=False)}' if details else "") + "}"
        text += "]" if request.tgi_compat else ""
    return text


def _jsonlines(output: TextGenerationOutput) -> str:
    """A line per token; the last one has the whole text."""
    sequence = _sequence(output)
    token, _first, last = sequence.get_next_token()
    shown = token or Token(-1, "")
    line: dict[str, Any] = {"token": shown.as_tgi_dict() if output.input.tgi_compat else shown.as_dict()}
    if last:
        prompt = _prompt(output) if output.input.parameters.get("return_full_text") else ""
        line["generated_text"] = prompt + "".join(token.text for token in sequence.tokens)
        if details := _details(output, sequence, with_tokens=False):
            line["details"] = details
    return json.dumps(line, ensure_ascii=False) + "\n"


def _sse(output: TextGenerationOutput) -> str:
    return f"data: {_jsonlines(output)}\n"


def _sequence(output: TextGenerationOutput) -> Sequence:
    return output.sequences[output.best_sequence_index]


def _prompt(output: TextGenerationOutput) -> str:
    return str(getattr(output.input, "input_text", ""))


def _details(output: TextGenerationOutput, sequence: Sequence, with_tokens: bool) -> dict[str, Any]:
    """What the client asked to know, and what a failure tells unasked."""
    reason, parameters = sequence.finish_reason, output.input.parameters
    if not parameters.get("details", output.input.tgi_compat):
        return {"finish_reason": reason} if reason == "error" else {}
    details: dict[str, Any] = {
        "finish_reason": reason,
        "generated_tokens": len(sequence.tokens),
        "inputs": _prompt(output),
    }
    if with_tokens:
        details["tokens"] = output.get_tokens_as_dict(output.best_sequence_index)
    if parameters.get("decoder_input_details"):
        details["prefill"] = output.get_prompt_tokens_as_dict()
    return details


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
