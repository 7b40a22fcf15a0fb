"""Models that come and go while the server runs."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bloomery.errors import (
    BloomeryError,
    ConflictError,
    InsufficientStorageError,
    LoadFailedError,
    ModelLoadError,
    ServiceUnavailableError,
)
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry
from bloomery.settings.model import ModelSettings
from bloomery.workers.report import OUT_OF_MEMORY

Result = TypeVar("Result")
logger = logging.getLogger("bloomery.serving")
_REMEMBERED = 16  # failed registrations whose reports are kept
_LAST_WORDS = 1.0  # seconds
_PATIENCE = 86_400.0  # seconds that requests of a model that goes get; their own deadlines come long before


@dataclass(frozen=True)
class Addition:
    """A model to be added, and what is to be cleaned up when it has gone. ``url`` is what the user called it."""

    settings: ModelSettings
    url: str
    discard: Callable[[], None]


class Registrar:
    """``make`` makes a model of its settings. What is begun here goes on when the client that asked for it leaves."""

    def __init__(self, registry: Registry, make: Callable[[ModelSettings], Model]) -> None:
        self._registry, self._make = registry, make
        self._failures: dict[tuple[str, str | None], ModelLoadError] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving: set[Model] = set()
        self._added: dict[Model, Addition] = {}
        self._closed = False

    def failure(self, name: str, version: str | None) -> ModelLoadError | None:
        """Why the last registration of that name and version failed, if it did."""
        return self._failures.get((name, version))

    def refuse_known(self, name: str, version: str | None) -> None:
        """ConflictError if that name and version is registered."""
        if self._registry.knows(name, version):
            suffix = f" version {version}" if version is not None else ""
            raise ConflictError(f"Model {name}{suffix} is already registered.")

    def admit(self, addition: Addition) -> Model:
        """Register a model; ``load`` comes next. ConflictError: its name and version are taken."""
        try:
            if self._closed:
                raise ServiceUnavailableError("the server is shutting down")
            self.refuse_known(addition.settings.name, addition.settings.version)
            model = self._make(addition.settings)
            self._registry.add(model, addition.url)
        except BaseException:
            addition.discard()
            raise
        self._added[model] = addition
        self._failures.pop((model.name, model.version), None)
        return model

    async def load(self, model: Model) -> None:
        """Returns when an admitted model can serve. LoadFailedError: it cannot, and nothing is left of it."""
        try:
            await model.start()
            await model.loaded()
        except BaseException as error:
            if isinstance(error, ModelLoadError) and model.error is not None:
                self._remember(model, error)  # first: whoever finds the model gone may ask why at once
            await self._end(model, 0)
            if not isinstance(error, ModelLoadError):
                raise
            memory = re.search(OUT_OF_MEMORY, error.report)
            raise (InsufficientStorageError if memory else LoadFailedError)(str(error)) from error

    async def unregister(self, models: Sequence[Model]) -> None:
        """Forget models at once, let them finish the requests they have, and end them."""
        for model in models:
            self._registry.remove(model)
        await asyncio.gather(*(self._end(model, _PATIENCE) for model in models))

    async def finish(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of ``work``, which goes on to its end even if nobody waits for it any more."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Let ``work`` run in the background; what goes wrong is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """The server ends: no more models, and those on their way out end at once. Stop the registry's own first."""
        self._closed = True
        await asyncio.gather(*(model.stop(0) for model in self._leaving))
        if self._tasks:  # calls that waited for those models now have their answers
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for addition in self._added.values():
            addition.discard()

    async def _end(self, model: Model, grace: float) -> None:
        self._registry.remove(model)
        self._leaving.add(model)
        try:
            await model.stop(grace)
        finally:
            self._leaving.discard(model)
            if (addition := self._added.pop(model, None)) is not None:
                addition.discard()

    def _remember(self, model: Model, error: ModelLoadError) -> None:
        self._failures[model.name, model.version] = error
        while len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BloomeryError):
            logger.warning("%s", error)
        elif error is not None:
            logger.error("a management call failed inside the server", exc_info=error)
