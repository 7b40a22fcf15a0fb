"""Libraries that a handler may do without, until it asks for what needs them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

_PACKAGES = {"PIL.Image": "pillow"}  # where the package is not called like its module


def needed(module: str, what: str) -> Any:
    """The module; an ImportError in words when it is not installed. ``what`` is what the caller asked for."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(module, module)
        raise ImportError(
            f"{what} needs {package}, which is not installed in {sys.executable}: add {package} to the model's "
            f"requirements.txt ({error})"
        ) from error
