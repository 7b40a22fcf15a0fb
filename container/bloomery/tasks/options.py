"""How a model's answers look and what its requests get by default: the options that tasks read."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.formats import Style

_SWITCHES = {"true": True, "false": False}
# DJLServing 0.23 knows "huggingface" too, which chose between two implementations of the same stream.
_STREAMING = {**_SWITCHES, "huggingface": True}
_SHAPES = {name: name for name in ("list", "nested", "object", "tgi")}
_NO_ROLLING_BATCH = ("disable", "false")
_COMPAT = {name: name for name in ("documented", "0.27", "0.36")}
# Each of LMI's formatters: how it frames a stream, and whether a request that does not say gets one. The chat
# formatters differ in answers to "messages" only, whose shape the request itself decides here.
_FORMATTERS = {
    "json": ("jsonlines", False),
    "jsonlines": ("jsonlines", True),
    "sse": ("sse", True),
    "json_chat": ("jsonlines", False),
    "jsonlines_chat": ("jsonlines", True),
    "none": ("text", False),
}


@dataclass(frozen=True)
class AnswerOptions:
    """What a request gets that does not say, and the style of every answer."""

    stream: bool = False
    style: Style = field(default_factory=Style)
    stop_sequences: tuple[str, ...] = ()
    conversational: bool = False  # requests are dialogues (option.task)

    @property
    def infers_sampling(self) -> bool:
        """Whether a temperature, top_k or top_p alone means sampling, as in LMI from 0.32 on and in TGI; before,
        do_sample had to be said."""
        return self.style.compat == "0.36" or self.style.shape == "tgi"

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> AnswerOptions:
        """The options in the initialise call's ``properties``; a ConfigurationError names the one that is wrong."""
        options = texts(properties)
        tgi = choice(options, "tgi_compat", "false", _SWITCHES)
        shape = choice(options, "answer_format", "tgi" if tgi else _usual_shape(options), _SHAPES)
        if tgi and shape != "tgi":
            raise ConfigurationError(
                f"option.tgi_compat=true and option.answer_format={shape} exclude each other: leave one of them out."
            )
        form, streams = _formatter(options, shape)
        if "enable_streaming" in options:
            streams = choice(options, "enable_streaming", "false", _STREAMING)
        compat = choice(options, "compat", "documented", _COMPAT)
        style = Style(shape, form, compat, plain=options.get("output_formatter") == "none")
        stop = _stop_sequences(options.get("stop_sequence"))
        return cls(streams, style, stop, conversational=options.get("task") == "conversational")


def texts(properties: Mapping[str, Any]) -> dict[str, str]:
    """The options that say something. Among the properties there may also be functions of a model's own file."""
    given = {name: str(value).strip() for name, value in properties.items() if isinstance(value, str | int)}
    return {name: value for name, value in given.items() if value}


def choice(options: Mapping[str, str], name: str, default: str, choices: Mapping[str, Any]) -> Any:
    """What ``option.name`` stands for; a ConfigurationError when it is none of the ``choices``."""
    value = options.get(name, default)
    try:
        return choices[value.lower()]
    except KeyError:
        raise ConfigurationError(f"option.{name}={value}: it must be one of {', '.join(choices)}.") from None


def _usual_shape(options: Mapping[str, str]) -> str:
    """LMI answered with a list, but with one object per request where requests were joined in a rolling batch."""
    return "list" if options.get("rolling_batch", "disable").lower() in _NO_ROLLING_BATCH else "object"


def _formatter(options: Mapping[str, str], shape: str) -> Any:
    """How streams are framed, and whether they are the default."""
    name = options.get("output_formatter", "")
    if name.startswith("3p"):
        raise ConfigurationError(
            f"option.output_formatter={name}: the answers of Amazon Bedrock's third-party models are not made here; "
            f"use one of {', '.join(_FORMATTERS)}."
        )
    if not name:
        return ("sse" if shape == "tgi" else "jsonlines"), False
    return choice(options, "output_formatter", "json", _FORMATTERS)


def _stop_sequences(text: str | None) -> tuple[str, ...]:
    """``['a', 'b']`` as Python or JSON writes lists; anything that is no list is one sequence itself."""
    if text is None:
        return ()
    if not text.startswith("["):
        return (text,)
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list) and all(isinstance(sequence, str) and sequence for sequence in found):
            return tuple(found)
    raise ConfigurationError(f"option.stop_sequence={text}: it must be a list of texts, such as ['###', 'User:'].")
