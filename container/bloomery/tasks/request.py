"""What a client asks of text generation: ``{"inputs": ..., "parameters": {...}, "stream": ...}`` or plain text.

Everything is checked here, before a rank computes: a wrong value is a BadRequestError that names the field, shows the
value and gives a valid example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bloomery.engines.base import GenerationParameters
from bloomery.errors import BadRequestError
from bloomery.tasks.fields import boolean as _boolean
from bloomery.tasks.fields import integer as _integer
from bloomery.tasks.fields import number as _number
from bloomery.tasks.fields import parse_json
from bloomery.tasks.fields import show as _show
from bloomery.tasks.fields import stop_sequences as _stop
from bloomery.tasks.fields import text as _text
from bloomery.tasks.fields import utf8 as _utf8
from djl_python import Input

MAX_PROMPTS = 512
EXAMPLE = '{"inputs": "To be, or not", "parameters": {"max_new_tokens": 30}}'


@dataclass(frozen=True)
class GenerationRequest:
    """One checked request. ``stream`` is None when the client does not say."""

    prompts: tuple[str, ...]
    parameters: GenerationParameters = field(default_factory=GenerationParameters)
    return_full_text: bool = True
    stream: bool | None = None


def read_request(inputs: Input) -> GenerationRequest:
    """The request in ``inputs``: JSON, or a text/plain body that is one prompt."""
    body = bytes(inputs.get_as_bytes() or b"")
    media_type = (inputs.get_property("content-type") or "").partition(";")[0].strip().lower()
    if media_type.startswith("text/"):
        return GenerationRequest(prompts=(_prompt("the body", _utf8(body)),))
    # curl without -H says application/x-www-form-urlencoded; what begins like an object is meant as JSON.
    if media_type in ("", "application/json", "application/jsonlines") or body.lstrip()[:1] == b"{":
        return _from_json(parse_json(body, EXAMPLE))
    raise BadRequestError(
        f"Content-Type {media_type!r} is not served here: send application/json, for example {EXAMPLE}, or text/plain."
    )


def _from_json(body: object) -> GenerationRequest:
    if not isinstance(body, dict):
        raise BadRequestError(f"The body is {_show(body)}: it must be a JSON object, for example {EXAMPLE}.")
    for name in body:
        if name not in ("inputs", "parameters", "stream"):
            raise BadRequestError(
                f"Unknown field {name!r}: the body's fields are inputs, parameters and stream; "
                f"generation settings belong into parameters, for example {EXAMPLE}."
            )
    if "inputs" not in body:
        raise BadRequestError(f"The body has no field 'inputs', for example {EXAMPLE}.")
    stream = body.get("stream")
    settings = body.get("parameters")
    if settings is not None and not isinstance(settings, dict):
        raise BadRequestError(f'parameters is {_show(settings)}: it must be an object, such as {{"do_sample": true}}.')
    parameters, return_full_text = _parameters(settings or {})
    return GenerationRequest(
        prompts=_prompts(body["inputs"]),
        parameters=parameters,
        return_full_text=return_full_text,
        stream=None if stream is None else _boolean("stream", stream),
    )


def _prompts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_prompt("inputs", value),)
    if not isinstance(value, list):
        raise BadRequestError(f'inputs is {_show(value)}: it must be a text or a list of texts, such as ["To be"].')
    if not value:
        raise BadRequestError('inputs is an empty list: it must hold at least one text, such as ["To be"].')
    if len(value) > MAX_PROMPTS:
        raise BadRequestError(f"inputs holds {len(value)} texts: at most {MAX_PROMPTS} fit one request; send several.")
    return tuple(_prompt(f"inputs[{index}]", text) for index, text in enumerate(value))


def _prompt(name: str, value: object) -> str:
    text = _text(name, value)
    if not text:
        raise BadRequestError(
            f'{name} is an empty text: there is nothing to continue; send at least one word, "To be".'
        )
    return text


# Temperatures nearer to 0 overflow the logits, and 0 would divide by it; greedy decoding is do_sample=false.
_CHECKS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "max_new_tokens": ("max_new_tokens", _integer(1, 2**31 - 1, 30)),
    "do_sample": ("do_sample", _boolean),
    "temperature": ("temperature", _number(1e-4, 1e4, 0.7)),
    "top_k": ("top_k", _integer(0, 2**31 - 1, 50)),
    "top_p": ("top_p", _number(1e-4, 1.0, 0.9)),
    "repetition_penalty": ("repetition_penalty", _number(0.01, 100.0, 1.1)),
    "num_beams": ("num_beams", _integer(1, 64, 4)),
    "seed": ("seed", _integer(0, 2**63 - 1, 42)),
    "stop": ("stop_sequences", _stop),
    "stop_sequences": ("stop_sequences", _stop),
    "ignore_eos": ("ignore_eos", _boolean),
    "ignore_eos_token": ("ignore_eos", _boolean),
    "return_full_text": ("return_full_text", _boolean),
}

# Text Generation Inference's and LMI's clients send these with every request; with these values they ask for nothing.
_ASKS_FOR_NOTHING: dict[str, object] = {
    "best_of": 1,
    "decoder_input_details": False,
    "details": False,
    "n": 1,
    "num_return_sequences": 1,
    "use_cache": True,
    "watermark": False,
}


def _parameters(settings: dict[str, object]) -> tuple[GenerationParameters, bool]:
    """The checked settings, and return_full_text. null means: the default."""
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None or (name in _ASKS_FOR_NOTHING and value == _ASKS_FOR_NOTHING[name]):
            continue
        if name not in _CHECKS:
            extra[name] = value  # an argument of the engine's own, or refused by the engine in words
            continue
        target, check = _CHECKS[name]
        checked = check(f"parameters.{name}", value)
        if target in known:
            raise BadRequestError(f"parameters.{name} is given under two names: send only parameters.{target}.")
        known[target] = checked
    return_full_text = known.pop("return_full_text", True)
    return GenerationParameters(**known, extra=extra), return_full_text
