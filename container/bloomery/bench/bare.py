"""The peer of ``scripts/bench echo``: aiohttp that gives back what it is sent, and nothing else.

``python -m bloomery.bench.bare uvloop`` (or ``asyncio``) names the event loop that it runs on.
"""

from __future__ import annotations

import asyncio
import socket
import sys


def main(loop: str) -> None:
    """Serve on a free port of the loopback interface, and say which."""
    import uvloop
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def serve() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/invocations", echo)
        # As our own server has it: without it, a client that goes away is noticed by nobody.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]};", flush=True)
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main(sys.argv[1])
