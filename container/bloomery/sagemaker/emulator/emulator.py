"""The emulator from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import aiohttp
from aiohttp import web

from bloomery.sagemaker.emulator import app, page
from bloomery.sagemaker.emulator.api.services import Services
from bloomery.sagemaker.emulator.api.store import Store
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.moto_child import MotoChild
from bloomery.sagemaker.emulator.aws.proxy import Proxy
from bloomery.sagemaker.emulator.aws.s3_journal import S3Journal
from bloomery.sagemaker.emulator.deployment import Hosting, Surroundings
from bloomery.sagemaker.emulator.page import Page
from bloomery.sagemaker.emulator.state import StateDirectory

logger = logging.getLogger(__name__)
_GRACE = 30.0  # seconds for containers to drain, as SageMaker gives them
_BUFFER = 256 * 1024  # bytes of a body that wait in memory
_KEEPALIVE = 75.0


class Outcome(Enum):
    """How it ended."""

    STOPPED = "a signal, after the containers had ended"
    INTERRUPTED = "a second signal, at once"
    FAILED = "moto died"


@dataclass(frozen=True)
class Door:
    """Where it listens. The socket listens already: clients that come early wait."""

    socket: socket.socket
    host: str
    url: str


async def run(
    door: Door,
    around: Surroundings,
    state: StateDirectory,
    host_endpoints: Callable[[Surroundings], Hosting],
    say: Callable[[str], None],
) -> Outcome:
    """Serve until a signal comes. ``say`` prints a line for the user."""
    started = time.monotonic()
    stop = _Signals()
    async with contextlib.AsyncExitStack() as ending:
        moto = MotoChild.start()
        ending.push_async_callback(moto.end)
        store = Store(state.database)
        ending.callback(store.close)
        hosting = host_endpoints(around)
        clients = Clients(around)
        ending.callback(clients.close)
        url = await moto.url()
        session = await ending.enter_async_context(_session())
        journal = S3Journal(state.objects, url, session)
        await journal.restore()
        services = Services(store, hosting, clients, around)
        shown = Page(services.endpoints, services.components, hosting.fleet)
        application = app.build(services.apis, hosting, shown, Proxy(url, session, journal), door.host)
        runner = web.AppRunner(
            application,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            keepalive_timeout=_KEEPALIVE,
            read_bufsize=_BUFFER,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        ending.push_async_callback(runner.cleanup)
        await web.SockSite(runner, door.socket).start()
        services.resume()
        say(f"ready: SageMaker on {door.url} ({time.monotonic() - started:.1f} s); page: {door.url}{page.PATH}")
        return await _until_the_end(stop, moto, services, hosting, say)


async def _until_the_end(
    stop: _Signals, moto: MotoChild, services: Services, hosting: Hosting, say: Callable[[str], None]
) -> Outcome:
    moto.exited.add_done_callback(lambda _: stop.first.set())
    await stop.first.wait()
    failed = moto.exited.done()
    if failed:
        logger.error("moto, which stands in for S3 and others, has died:\n%s", moto.last_words())
    else:
        say(f"stopping: containers get {_GRACE:g} s; a second signal ends them at once")
    await services.close()
    closing = asyncio.create_task(hosting.fleet.close(0 if failed else _GRACE))
    second = asyncio.create_task(stop.second.wait())
    await asyncio.wait({closing, second}, return_when=asyncio.FIRST_COMPLETED)
    second.cancel()
    if not closing.done():
        closing.cancel()
        await asyncio.wait({closing})
        await hosting.fleet.close(0)
        return Outcome.INTERRUPTED
    closing.result()
    return Outcome.FAILED if failed else Outcome.STOPPED


class _Signals:
    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._come)

    def _come(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _session() -> aiohttp.ClientSession:
    """To moto, which closes each connection after its answer and takes its time over large objects."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None),
    )
