"""The adapters of one model, the same in every group: registered, remembered, and registered again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bloomery.errors import (
    BadRequestError,
    ConflictError,
    HandlerRefusalError,
    NotFoundError,
    RequestError,
    ServiceUnavailableError,
)
from bloomery.workers.adapter import REGISTER, UNREGISTER, UPDATE, Adapter, lacks_function, refusal_of
from bloomery.workers.answer import Answer
from bloomery.workers.group import Group


class Adapters:
    """``groups`` are those of the model, as they come and go; they register ``known`` before they take requests."""

    def __init__(self, model: str, groups: Sequence[Group], known: dict[str, Adapter]) -> None:
        self._model, self._groups = model, groups
        self.known = known
        self._in_use = bool(known)
        self._lock = asyncio.Lock()

    def get(self, name: str) -> Adapter:
        """The adapter of that name."""
        if name not in self.known:
            have = ", ".join(self.known) or "none"
            raise NotFoundError(f"Adapter not found: {name}; the adapters of model {self._model!r}: {have}")
        return self.known[name]

    def check(self, name: str | None) -> None:
        """Refuse a request for an adapter that is not there.

        A model that never had one may mean something else by a parameter called adapter: it sees for itself.
        """
        if name and self._in_use:
            self.get(name)

    async def register(self, adapter: Adapter) -> None:
        """Have every group's handler register it; refused, it is as if nothing had been asked."""
        async with self._lock:
            if adapter.name in self.known:
                raise ConflictError(f"Adapter {adapter.name} is already registered.")
            # Before the calls, so that a group that gets ready meanwhile registers it by itself.
            self.known[adapter.name] = adapter
            try:
                await self._everywhere(REGISTER, adapter)
            except RequestError:
                self.known.pop(adapter.name, None)
                await self._call(UNREGISTER, adapter)  # in the groups where it succeeded; the others refuse
                raise
            self._in_use = True

    async def update(self, adapter: Adapter) -> None:
        """Have every group's handler take its new source and options."""
        async with self._lock:
            self.get(adapter.name)
            await self._everywhere(UPDATE, adapter)
            self.known[adapter.name] = adapter

    async def unregister(self, name: str) -> None:
        """Have every group's handler forget it."""
        async with self._lock:
            adapter = self.get(name)
            del self.known[name]
            try:
                await self._everywhere(UNREGISTER, adapter)
            except RequestError:
                self.known[name] = adapter
                raise

    async def _everywhere(self, function: str, adapter: Adapter) -> None:
        answers = await self._call(function, adapter)
        if not answers:
            raise ServiceUnavailableError(f"no worker group of model {self._model!r} can take {function} now")
        for answer in answers:
            if (refusal := refusal_of(answer)) is None:
                continue
            if lacks_function(refusal, function):
                raise BadRequestError(f"model {self._model!r} takes no such call for adapters: {refusal}")
            raise HandlerRefusalError(f"{function} of adapter {adapter.name!r}: {refusal}", answer.code)

    async def _call(self, function: str, adapter: Adapter) -> list[Answer]:
        """The answers of the groups that are ready; one that is lost meanwhile hears of it when it is back."""
        ready = [group for group in self._groups if group.state == "ready"]
        calls = (group.call(function, adapter.request()) for group in ready)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ServiceUnavailableError):
                raise result
        return [result for result in results if isinstance(result, Answer)]
