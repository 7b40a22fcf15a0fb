"""Makes generation requests of what a server sends; also where handlers import the marks for such functions from."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from djl_python.encode_decode import decode
from djl_python.inputs import Input
from djl_python.marks import init_handler, input_formatter, prediction_handler
from djl_python.request import Request
from djl_python.request_io import TextInput

__all__ = [
    "SAGEMAKER_ADAPTER_IDENTIFIER_HEADER",
    "ParsedInput",
    "format_input",
    "init_handler",
    "input_formatter",
    "parse_input_with_formatter",
    "prediction_handler",
]

logger = logging.getLogger("djl_python.input_parser")

SAGEMAKER_ADAPTER_IDENTIFIER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"


@dataclass
class ParsedInput:
    """The new requests of a call, the errors of those that are none by their place, and all items."""

    errors: dict[int, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    batch: list[Input] = field(default_factory=list)


def parse_input_with_formatter(inputs: Input, **kwargs: Any) -> ParsedInput:
    """Parse the items of ``inputs`` that are new; ``rolling_batch`` says how many are running already.

    ``input_formatter`` (or that of ``configs``) makes a TextInput of an item; without one the body is
    ``{"inputs": …, "parameters": {…}, "stream": …}``. ``configs`` may have ``output_formatter`` and ``tgi_compat`` too.
    """
    configs, rolling_batch = kwargs.get("configs"), kwargs.get("rolling_batch")
    formatter = kwargs.get("input_formatter") or getattr(configs, "input_formatter", None) or format_input
    parsed = ParsedInput(batch=inputs.get_batches())
    running = len(rolling_batch.active_requests) if rolling_batch is not None else 0
    for index, item in enumerate(parsed.batch[running:], start=running):
        try:
            text = formatter(item, **{**kwargs, "input_formatter": formatter})
            text.request_id = rolling_batch.req_id_counter.next_id() if rolling_batch is not None else index
            text.tokenizer = kwargs.get("tokenizer")
            text.tgi_compat = bool(getattr(configs, "tgi_compat", False))
            text.server_parameters = {**text.parameters, **_server_parameters(item, text, configs)}
            parsed.requests.append(Request(text))
        except Exception as error:
            reason = f"Invalid Request Property: {error}" if isinstance(error, KeyError) else str(error)
            parsed.errors[index] = f"Input Parsing failed. Ensure that the request payload is valid. {reason}"
            logger.warning("request %d of %d cannot be parsed: %s", index, len(parsed.batch), reason)
    return parsed


def format_input(input_item: Input, **_: Any) -> TextInput:
    """The default input formatter."""
    body = decode(input_item, input_item.get_property("Content-Type"))
    if not isinstance(body, dict) or body.get("inputs") is None:
        raise ValueError('the body must be a JSON object with the field "inputs"')
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError(f"parameters must be an object, not {type(parameters).__name__}")
    return TextInput(input_text=body["inputs"], parameters={**parameters, "stream": body.get("stream", False)})


def _server_parameters(item: Input, text: TextInput, configs: Any) -> dict[str, Any]:
    """What the server adds to the client's parameters."""
    added: dict[str, Any] = {}
    if "seed" not in text.parameters and item.contains_key("seed"):
        added["seed"] = item.get_as_string("seed")
    if "output_formatter" not in text.parameters:
        added["output_formatter"] = getattr(configs, "output_formatter", None)
    return added
