"""Loads a user's handler and finds functions in it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.processes import rank
from djl_python.custom_code import CustomCode, script_handler
from djl_python.inputs import Input

DEFAULT_HANDLER = "handle"
BUILT_IN = "djl_python.huggingface"


class ModelService:
    """One entry point, loaded when the first function is asked for and then kept.

    ``entry_point`` may be a module that is loaded already. For a file without a ``handle`` the handler ``recommended``
    takes its place; ``built_in`` does for one that has formatters only.
    """

    def __init__(
        self, model_dir: str, entry_point: str | ModuleType, recommended: str = "", built_in: str = BUILT_IN
    ) -> None:
        self.model_dir, self.entry_point = os.path.abspath(model_dir), entry_point
        self._recommended, self._built_in = recommended, recommended or built_in
        self._module: ModuleType | None = None
        self._code = CustomCode()
        self._handle: Callable[..., Any] | None = None  # made for a file that has none
        self.initialised = False

    def initialises(self, inputs: Input) -> bool:
        """Whether this is the initialise call: the first request without content, until one has succeeded."""
        return inputs.is_empty() and not self.initialised

    def finish_initialising(self, code: int) -> None:
        """Take the initialise call's status, and tell the control channel."""
        self.initialised = code < 300
        rank.current.report(*(("ready", 100.0) if self.initialised else ("failed", 0.0)))

    @property
    def formatters(self) -> dict[str, Callable[..., Any]]:
        """The marked formatters, which a handler finds in its properties; known once a function was asked for."""
        return self._code.formatters

    def function(self, name: str | None) -> Callable[..., Any]:
        """The handler function ``name``, ``handle`` unless told otherwise."""
        name = name or DEFAULT_HANDLER
        if self._module is None:
            rank.current.report("importing handler")
            self._module = self._load()
            self._code = CustomCode.of(self._module)
        found = getattr(self._module, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
        if name == DEFAULT_HANDLER:
            self._handle = self._handle or self._stand_in()
            if self._handle is not None:
                return self._handle
        own = [
            key for key, value in vars(self._module).items() if inspect.isfunction(value) and not key.startswith("_")
        ]
        raise ConfigurationError(
            f"{self.entry_point} in {self.model_dir} has no function {name!r} (property handler, option.handler); "
            f"its functions are: {', '.join(own) or 'none'}"
        )

    def _load(self) -> ModuleType:
        if isinstance(self.entry_point, ModuleType):
            return self.entry_point
        return load_module(self.model_dir, self.entry_point)

    def _stand_in(self) -> Callable[..., Any] | None:
        """A handler for a file without one: of its marked functions, or the recommended one."""
        if self._code.predicts:
            return script_handler(self._code, self.model_dir)
        if not self._code.formatters and not self._recommended:
            return None
        built_in: Callable[..., Any] = _import(self._built_in, self.model_dir).handle
        if not self._code.formatters:
            return built_in
        from djl_python.formatted_handler import formatted_handler

        return formatted_handler(self._code, built_in)


def load_module(model_dir: str, entry_point: str) -> ModuleType:
    """The module of an entry point: a file (absolute, or in the model directory), or an importable module's name.

    A file is executed once, under its own name: ``model.py`` is module ``model``, so that classes in it can be
    pickled. (DJLServing 0.36 executes it three times per worker, under a mangled name.)
    """
    if model_dir not in sys.path:
        sys.path.append(model_dir)  # what the handler imports from beside itself
    if not entry_point.endswith(".py"):
        return _import(entry_point, model_dir)
    path = Path(model_dir, entry_point)  # an absolute entry point wins over model_dir
    if not path.is_file():
        raise ConfigurationError(
            f"entry point {entry_point!r} not found: there is no file {path}. Put it there, or set option.entryPoint "
            f"to a file of the model directory, an absolute path, or a module such as djl_python.huggingface"
        )
    return _execute(path, _module_name(entry_point))


def _module_name(entry_point: str) -> str:
    if os.path.isabs(entry_point):
        return "model"  # DJLServing's rule for absolute entry points
    return ".".join(Path(entry_point).with_suffix("").parts)


def _import(name: str, model_dir: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the entry point exists, and something it imports does not
        raise ConfigurationError(
            f"entry point {name!r} is neither a .py file nor an importable module (looked in {model_dir} and on "
            f"PYTHONPATH); a file needs its .py, a built-in handler its package: djl_python.huggingface"
        ) from error


def _execute(path: Path, name: str) -> ModuleType:
    if name in sys.modules:
        raise ConfigurationError(
            f"entry point {path} would be module {name!r}, and a module of that name is in use already "
            f"({getattr(sys.modules[name], '__file__', None) or 'built in'}); rename the file"
        )
    parent, _dot, _leaf = name.rpartition(".")
    if parent:
        importlib.import_module(parent)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"entry point {path} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
