"""The container behind ``scripts/bench emulator``: aiohttp that gives back what it is sent, as SageMaker wants it.

``python -m bloomery.bench.container serve``. A body ``where`` is answered with its port, ``stream`` with a piece at
once and another a moment later.
"""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop
from aiohttp import web

_MOMENT = 0.02  # seconds


async def _ping(_: web.Request) -> web.Response:
    return web.Response()


async def _invocations(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    if body == b"where":
        return web.Response(text=os.environ["SAGEMAKER_BIND_TO_PORT"])
    if body != b"stream":
        return web.Response(body=body)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first")
    await asyncio.sleep(_MOMENT)
    await response.write(b"second")
    return response


async def _serve() -> None:
    app = web.Application(client_max_size=2**30)
    app.router.add_get("/ping", _ping)
    app.router.add_post("/invocations", _invocations)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])).start()
    stopped = asyncio.Event()
    # Process 1 of a container has no default action for SIGTERM: without this it is killed, 30 s later.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(_serve())
