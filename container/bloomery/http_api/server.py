"""One server from its first accepted connection to its exit: load, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterable
from enum import Enum

from aiohttp import web

from bloomery.errors import ModelLoadError
from bloomery.http_api import access, app, listen
from bloomery.http_api.connection import Runner
from bloomery.serving.model import Model
from bloomery.serving.registry import Registry
from bloomery.settings import Settings

logger = logging.getLogger(__name__)
_LAST_WORDS = 1.0  # seconds for the answers to requests that the end of their model has cut short
_KEEPALIVE = 75.0


class Outcome(Enum):
    """How a server ended."""

    STOPPED = "a signal, after requests in flight were answered"
    INTERRUPTED = "a second signal, at once"
    FAILED = "a required model could not be loaded or kept alive"


class Server:
    """``say`` prints a line for the user; ``report`` receives the legible block about a failed model."""

    def __init__(
        self,
        settings: Settings,
        models: Iterable[Model],
        listener: socket.socket,
        say: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self._settings, self._listener, self._say, self._report = settings, listener, say, report
        self._grace = settings.server.shutdown_grace
        self._started = time.monotonic()
        self._signals = 0
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        self._failure: ModelLoadError | None = None
        self._registry = Registry(self._model_failed)
        for model in models:
            self._registry.add(model)

    async def run(self) -> Outcome:
        """Serve until a signal comes or a required model fails."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        # handler_cancellation: without it a client that goes away is noticed by nobody.
        logging.getLogger("aiohttp.server").addFilter(access.NotHttp())
        runner = Runner(
            app.build(self._registry, self._settings.server),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=self._grace + _LAST_WORDS,
            keepalive_timeout=_KEEPALIVE,
        )
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        announcements = [asyncio.create_task(self._announce(model)) for model in self._registry.models()]
        await self._registry.start()
        await self._first.wait()
        for announcement in announcements:
            announcement.cancel()
        return await self._end(runner)

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._say(f"stopping: requests in flight get {self._grace:g} s; a second signal ends them at once")
        else:
            self._second.set()
        self._first.set()

    def _model_failed(self, model: Model, error: ModelLoadError) -> None:
        self._failure = self._failure or error
        self._first.set()

    async def _announce(self, model: Model) -> None:
        try:
            await model.loaded()
        except ModelLoadError:
            return  # the registry has told _model_failed, or the log
        elapsed = time.monotonic() - self._started
        self._say(f"ready: model {model.name} on {listen.url(self._listener)} ({elapsed:.1f} s)")

    async def _end(self, runner: web.AppRunner) -> Outcome:
        if self._failure is not None:
            self._report(self._failure.report)
        drain = asyncio.create_task(self._drain(runner, 0 if self._failure else self._grace))
        second = asyncio.create_task(self._second.wait())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            await self._registry.stop(0)
            return Outcome.INTERRUPTED
        drain.result()
        return Outcome.FAILED if self._failure else Outcome.STOPPED

    async def _drain(self, runner: web.AppRunner, grace: float) -> None:
        """Take no new connection, let requests finish, answer the rest with the reason, end the ranks."""
        cleanup = asyncio.create_task(runner.cleanup())  # closes the port at once and waits for the requests
        await asyncio.wait({cleanup}, timeout=grace)
        await self._registry.stop(0)
        await asyncio.wait({cleanup}, timeout=_LAST_WORDS)
        cleanup.cancel()
        await asyncio.gather(cleanup, return_exceptions=True)
