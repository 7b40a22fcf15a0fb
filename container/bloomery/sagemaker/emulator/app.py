"""One port for everything: the services that are ours, the page, and moto for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from bloomery.sagemaker.emulator import fault_routes, guard
from bloomery.sagemaker.emulator.api.json_api import JsonApi
from bloomery.sagemaker.emulator.aws.proxy import Proxy
from bloomery.sagemaker.emulator.deployment import Hosting
from bloomery.sagemaker.emulator.page import Page


def build(services: Sequence[JsonApi], hosting: Hosting, page: Page, proxy: Proxy, host: str) -> web.Application:
    """The application. Its runner must leave bodies compressed (``auto_decompress=False``): objects are what they are.

    ``host`` is the name or address that it will listen on.
    """
    app = web.Application(middlewares=[guard.middleware(host)])
    hosting.add_routes(app)
    page.add_routes(app)
    fault_routes.add_routes(app, hosting.faults)

    async def dispatch(http: web.Request) -> web.StreamResponse:
        target = http.headers.get("X-Amz-Target", "")
        for service in services:
            if service.takes(target):
                return await service.handle(http)
        return await proxy.handle(http)

    app.router.add_route("*", "/{path:.*}", dispatch)
    return app
