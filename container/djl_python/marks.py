"""Decorators that mark a function of a model.py; ``djl_python.custom_code`` finds it, whatever its name.

Handlers import them from ``djl_python.input_parser`` and ``djl_python.output_formatter``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def input_formatter(function: Function) -> Function:
    """Called with every request before the built-in handler: ``(inputs: Input, **kwargs) -> TextInput``, or
    ``(payload: dict, **kwargs) -> dict``."""
    function.is_input_formatter = True  # type: ignore[attr-defined]
    return function


def output_formatter(function: Function) -> Function:
    """Called with every answer of the built-in handler: ``(output: TextGenerationOutput) -> str`` once per token, or
    ``(response: dict) -> dict`` once per answer (per line, when it is streamed)."""
    function.is_output_formatter = True  # type: ignore[attr-defined]
    return function


def prediction_handler(function: Function) -> Function:
    """Called for the prediction: ``(data, model, **kwargs) -> prediction``."""
    function.is_prediction_handler = True  # type: ignore[attr-defined]
    return function


def init_handler(function: Function) -> Function:
    """Called once to load the model: ``(model_dir, **kwargs) -> model``."""
    function.is_init_handler = True  # type: ignore[attr-defined]
    return function
