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
from bloomery.tasks.body import read_body
from bloomery.tasks.fields import boolean, integer, number, show, stop_sequences, text
from bloomery.tasks.options import AnswerOptions
from djl_python import Input

MAX_PROMPTS = 512
NO_OPTIONS = AnswerOptions()
EXAMPLE = '{"inputs": "To be, or not", "parameters": {"max_new_tokens": 30}}'


@dataclass(frozen=True)
class GenerationRequest:
    """One checked request."""

    prompts: tuple[str, ...]
    parameters: GenerationParameters = field(default_factory=GenerationParameters)
    return_full_text: bool | None = None  # None, here and below: the client does not say
    details: bool | None = None
    truncate: int | None = None  # tokens of each prompt that count, from its end
    listed: bool = False  # inputs was a list
    stream: bool | None = None


def read_request(inputs: Input, options: AnswerOptions = NO_OPTIONS) -> GenerationRequest:
    """The request in ``inputs``: JSON, or a text/plain body that is one prompt."""
    body = read_body(inputs, EXAMPLE)
    if body.text is not None:
        defaults = GenerationParameters(stop_sequences=options.stop_sequences)
        return GenerationRequest(prompts=(_prompt("the body", body.text),), parameters=defaults)
    asked = _parameters(body.parameters, options)
    return GenerationRequest(
        prompts=_prompts(body.inputs),
        return_full_text=asked.pop("return_full_text", None),
        details=asked.pop("details", None),
        truncate=asked.pop("truncate", None),
        parameters=GenerationParameters(**asked),
        listed=isinstance(body.inputs, list),
        stream=body.stream,
    )


def generation_parameters(settings: dict[str, object], options: AnswerOptions) -> GenerationParameters:
    """The checked ``parameters`` of a request whose answer has one shape: those that choose a shape are refused."""
    asked = _parameters(settings, options)
    for name in ("details", "return_full_text", "truncate"):
        if asked.pop(name, None):
            raise BadRequestError(f"parameters.{name} is {show(settings[name])}: this task has no such choice.")
    return GenerationParameters(**asked)


def _prompts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_prompt("inputs", value),)
    if not isinstance(value, list):
        raise BadRequestError(f'inputs is {show(value)}: it must be a text or a list of texts, such as ["To be"].')
    if not value:
        raise BadRequestError('inputs is an empty list: it must hold at least one text, such as ["To be"].')
    if len(value) > MAX_PROMPTS:
        raise BadRequestError(f"inputs holds {len(value)} texts: at most {MAX_PROMPTS} fit one request; send several.")
    return tuple(_prompt(f"inputs[{index}]", each) for index, each in enumerate(value))


def _prompt(name: str, value: object) -> str:
    prompt = text(name, value)
    if not prompt:
        raise BadRequestError(
            f'{name} is an empty text: there is nothing to continue; send at least one word, "To be".'
        )
    return prompt


def _temperature(name: str, value: object) -> float:
    """Temperatures nearer to 0 overflow the logits, and 0 would divide by it."""
    if isinstance(value, int | float) and value == 0 and not isinstance(value, bool):
        raise BadRequestError(
            f"{name} is {show(value)}: for the most probable tokens, leave it out and send do_sample: false."
        )
    return number(1e-4, 1e4, 0.7)(name, value)


_CHECKS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "max_new_tokens": ("max_new_tokens", integer(1, 2**31 - 1, 30)),
    "do_sample": ("do_sample", boolean),
    "temperature": ("temperature", _temperature),
    "top_k": ("top_k", integer(0, 2**31 - 1, 50)),
    "top_p": ("top_p", number(1e-4, 1.0, 0.9)),
    "repetition_penalty": ("repetition_penalty", number(0.01, 100.0, 1.1)),
    "num_beams": ("num_beams", integer(1, 64, 4)),
    "seed": ("seed", integer(0, 2**63 - 1, 42)),
    "stop": ("stop_sequences", stop_sequences),
    "stop_sequences": ("stop_sequences", stop_sequences),
    "ignore_eos": ("ignore_eos", boolean),
    "ignore_eos_token": ("ignore_eos", boolean),
    "return_full_text": ("return_full_text", boolean),
    "details": ("details", boolean),
    "truncate": ("truncate", integer(1, 2**31 - 1, 512)),
}

# Text Generation Inference's and LMI's clients send these with every request; with these values they ask for nothing.
_ASKS_FOR_NOTHING: dict[str, object] = {
    "best_of": 1,
    "decoder_input_details": False,
    "frequency_penalty": 0,
    "include_stop_str_in_output": False,
    "n": 1,
    "num_return_sequences": 1,
    "presence_penalty": 0,
    "skip_special_tokens": True,
    "top_n_tokens": 0,
    "use_cache": True,
    "watermark": False,
}
_ONE_TEXT = "one text is generated per prompt; send the prompt several times in inputs, with do_sample true"
# With other values: why not, and what to send instead.
_REFUSED: dict[str, str] = {
    "best_of": _ONE_TEXT,
    "decoder_input_details": "the log probabilities of the prompt's tokens are not kept; send false",
    "frequency_penalty": "there is no such penalty in transformers; send repetition_penalty",
    "include_stop_str_in_output": "a stop sequence is never part of the text; send false",
    "logprobs": "send details: true, which tells the log probability of every token",
    "n": _ONE_TEXT,
    "num_return_sequences": _ONE_TEXT,
    "presence_penalty": "there is no such penalty in transformers; send repetition_penalty",
    "skip_special_tokens": "special tokens are never part of the text; send true",
    "top_n_tokens": "only the chosen token's log probability is kept, which details: true tells; send 0",
    "watermark": "texts are not watermarked; send false",
}
_MEANS_SAMPLING = ("temperature", "top_k", "top_p", "typical_p", "min_p")


def _parameters(settings: dict[str, object], options: AnswerOptions) -> dict[str, Any]:
    """The checked settings under our names, ``extra`` among them. null means: the default."""
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None or (name in _ASKS_FOR_NOTHING and value == _ASKS_FOR_NOTHING[name]):
            continue
        if name in _REFUSED:
            raise BadRequestError(f"parameters.{name} is {show(value)}: {_REFUSED[name]}.")
        if name not in _CHECKS:
            extra[name] = value  # an argument of the engine's own, or refused by the engine in words
            continue
        target, check = _CHECKS[name]
        checked = check(f"parameters.{name}", value)
        if target in known:
            raise BadRequestError(f"parameters.{name} is given under two names: send only parameters.{target}.")
        known[target] = checked
    if options.infers_sampling and any(name in known or name in extra for name in _MEANS_SAMPLING):
        known.setdefault("do_sample", True)
    known.setdefault("stop_sequences", options.stop_sequences)
    return {**known, "extra": extra}
