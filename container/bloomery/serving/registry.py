"""Finds a model by name and version, and knows whether the server is well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bloomery.errors import BadRequestError, ConfigurationError, ModelLoadError, ModelNotFoundError
from bloomery.serving.model import Model

logger = logging.getLogger("bloomery.serving")


class Registry:
    """``on_failure`` is called when a required model fails; its error holds the report for the user."""

    def __init__(self, on_failure: Callable[[Model, ModelLoadError], None] | None = None) -> None:
        self._models: dict[tuple[str, str | None], Model] = {}
        self._urls: dict[Model, str] = {}  # of those added while the server runs, as they were given
        self._on_failure = on_failure

    def add(self, model: Model, url: str | None = None) -> None:
        """Register ``model``; the caller starts it. ``url``: where it is from, when the server runs already."""
        key = (model.name, model.version)
        if key in self._models:
            version = f" version {model.version}" if model.version else ""
            raise ConfigurationError(f"model {model.name!r}{version} is registered twice; give one another name")
        self._models[key] = model
        if url is not None:
            self._urls[model] = url
        model.on_failure = self._failed

    def remove(self, model: Model) -> None:
        """Forget ``model``, if that has not happened yet; the caller stops it."""
        if self._models.get((model.name, model.version)) is model:
            del self._models[model.name, model.version]
        self._urls.pop(model, None)

    def knows(self, name: str, version: str | None) -> bool:
        """Whether exactly that name and version is taken."""
        return (name, version) in self._models

    def at_startup(self, model: Model) -> bool:
        """Whether it was there when the server started."""
        return model not in self._urls

    def url(self, model: Model) -> str:
        """Where it is from."""
        return self._urls.get(model) or model.settings.model_dir.as_uri()

    def models(self) -> list[Model]:
        """All of them, in the order they were added."""
        return list(self._models.values())

    def versions(self, name: str, version: str | None = None) -> list[Model]:
        """All versions of that name, or the one; ModelNotFoundError if there is none."""
        self.get(name, version)
        named = [model for model in self.models() if model.name == name]
        return [model for model in named if version is None or model.version == version]

    def get(self, name: str | None = None, version: str | None = None) -> Model:
        """The model of that name and version; without a version the newest added, without a name the only one."""
        if not name:
            if len(self._models) == 1:
                return next(iter(self._models.values()))
            raise BadRequestError("Parameter model_name is required.")
        found = [model for (known, _), model in self._models.items() if known == name]
        if version is not None:
            found = [model for model in found if model.version == version]
        if not found:
            suffix = f" version {version}" if version is not None else ""
            raise ModelNotFoundError(f"Model or workflow not found: {name}{suffix}")
        return found[-1]

    def healthy(self) -> bool:
        """Whether a group of every required model can answer now."""
        return all(model.status().state == "ready" for model in self.models() if model.settings.required)

    async def start(self) -> None:
        """Begin to load every model."""
        await asyncio.gather(*(model.start() for model in self.models()))

    async def stop(self, grace: float) -> None:
        """Stop every model."""
        await asyncio.gather(*(model.stop(grace) for model in self.models()))

    def _failed(self, model: Model, error: ModelLoadError) -> None:
        if model.settings.required and self._on_failure is not None:
            self._on_failure(model, error)
        else:
            logger.error("%s", error.report)
