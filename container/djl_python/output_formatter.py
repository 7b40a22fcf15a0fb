"""Marks the function of a model.py that shapes answers, and names the types that it reads."""

from __future__ import annotations

from djl_python.input_parser import Function
from djl_python.request_io import RequestInput, RequestOutput, Sequence, TextGenerationOutput, TextInput, Token

__all__ = [
    "RequestInput",
    "RequestOutput",
    "Sequence",
    "TextGenerationOutput",
    "TextInput",
    "Token",
    "output_formatter",
]


def output_formatter(function: Function) -> Function:
    """Called with every answer of the built-in handler: ``(output: TextGenerationOutput) -> str`` once per token, or
    ``(response: dict) -> dict`` once per answer (per line, when it is streamed)."""
    function.is_output_formatter = True  # type: ignore[attr-defined]
    return function
