"""Marks functions of a model.py: ``@input_formatter``, ``@prediction_handler``, ``@init_handler``.

A marked function may have any name. ``djl_python.custom_code`` finds it and says when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

SAGEMAKER_ADAPTER_IDENTIFIER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"


def input_formatter(function: Function) -> Function:
    """Called with every request before the built-in handler: ``(inputs: Input, **kwargs) -> TextInput``, or
    ``(payload: dict, **kwargs) -> dict``."""
    function.is_input_formatter = True  # type: ignore[attr-defined]
    return function


def prediction_handler(function: Function) -> Function:
    """Called for the prediction: ``(data, model, **kwargs) -> prediction``."""
    function.is_prediction_handler = True  # type: ignore[attr-defined]
    return function


def init_handler(function: Function) -> Function:
    """Called once to load the model: ``(model_dir, **kwargs) -> model``."""
    function.is_init_handler = True  # type: ignore[attr-defined]
    return function
