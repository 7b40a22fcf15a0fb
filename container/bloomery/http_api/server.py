"""One server from its first accepted connection to its exit: load, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import Callable
from enum import Enum

from aiohttp import web

from bloomery.errors import ModelLoadError
from bloomery.http_api import access, app, tls
from bloomery.http_api.connection import Runner
from bloomery.http_api.listen import Listener
from bloomery.http_api.permission import Door
from bloomery.serving.model import Model
from bloomery.serving.registrar import Registrar
from bloomery.serving.registry import Registry
from bloomery.settings import ModelSettings, Settings

logger = logging.getLogger(__name__)
_LAST_WORDS = 1.0  # seconds for the answers to requests that the end of their model has cut short
_KEEPALIVE = 75.0


class Outcome(Enum):
    """How a server ended."""

    STOPPED = "a signal, after requests in flight were answered"
    INTERRUPTED = "a second signal, at once"
    FAILED = "a required model could not be loaded or kept alive"


class Server:
    """``make`` makes the models, those of ``settings`` and later ones. Without a ``management`` listener management is
    at the inference address. ``say`` prints a line for the user; ``report`` receives the legible block about a failed
    model."""

    def __init__(
        self,
        settings: Settings,
        make: Callable[[ModelSettings], Model],
        inference: Listener,
        management: Listener | None,
        say: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self._settings, self._say, self._report = settings, say, report
        self._inference, self._management = inference, management
        self._tls = self._tls_context(settings)
        self._grace = settings.server.shutdown_grace
        self._started = time.monotonic()
        self._signals = 0
        self._first = asyncio.Event()
        self._second = asyncio.Event()
        self._failure: ModelLoadError | None = None
        self._registry = Registry(self._model_failed)
        for each in settings.models:
            self._registry.add(make(each))
        self._registrar = Registrar(self._registry, make)

    async def run(self) -> Outcome:
        """Serve until a signal comes or a required model fails."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        logging.getLogger("aiohttp.server").addFilter(access.NotHttp())
        runners = [await self._open(self._inference, Door.INFERENCE if self._management else Door.ALL)]
        if self._management is not None:
            runners.append(await self._open(self._management, Door.MANAGEMENT))
        announcements = [asyncio.create_task(self._announce(model)) for model in self._registry.models()]
        await self._registry.start()
        await self._first.wait()
        for announcement in announcements:
            announcement.cancel()
        return await self._end(runners)

    @staticmethod
    def _tls_context(settings: Settings) -> ssl.SSLContext | None:
        certificate, key = settings.server.certificate_file, settings.server.private_key_file
        return tls.context(certificate, key) if certificate and key else None

    async def _open(self, listener: Listener, door: Door) -> Runner:
        application = app.build(self._registry, self._settings.server, self._registrar, door)
        runner = Runner(
            application,
            application[app.FINISH],
            application[app.DIRECT],
            handler_cancellation=True,  # without it a client that goes away is noticed by nobody
            access_log=None,
            shutdown_timeout=self._grace + _LAST_WORDS,
            keepalive_timeout=_KEEPALIVE,
        )
        await runner.setup()
        secure = self._tls if listener.address.scheme == "https" else None
        await web.SockSite(runner, listener.socket, ssl_context=secure).start()
        return runner

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
        self._say(f"ready: model {model.name} on {self._inference.url} ({elapsed:.1f} s)")

    async def _end(self, runners: list[Runner]) -> Outcome:
        if self._failure is not None:
            self._report(self._failure.report)
        drain = asyncio.create_task(self._drain(runners, 0 if self._failure else self._grace))
        second = asyncio.create_task(self._second.wait())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            await self._stop_models()
            return Outcome.INTERRUPTED
        drain.result()
        return Outcome.FAILED if self._failure else Outcome.STOPPED

    async def _stop_models(self) -> None:
        await self._registry.stop(0)
        await self._registrar.close()

    async def _drain(self, runners: list[Runner], grace: float) -> None:
        """Take no new connection, let requests finish, answer the rest with the reason, end the ranks."""
        # These close the ports at once and wait for the requests.
        cleanups = [asyncio.create_task(runner.cleanup()) for runner in runners]
        await asyncio.wait(cleanups, timeout=grace)
        await self._stop_models()
        await asyncio.wait(cleanups, timeout=_LAST_WORDS)
        for cleanup in cleanups:
            cleanup.cancel()
        await asyncio.gather(*cleanups, return_exceptions=True)
