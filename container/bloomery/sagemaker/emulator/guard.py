"""Keeps web pages away. Any site that the user visits can send requests to 127.0.0.1, and this API starts programs."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Domains that no stranger owns, by which clients come here: S3's virtual hosts on loopback, a private network's names,
# AWS's own through a proxy.
_NOBODYS = (".localhost", ".internal", ".local", ".amazonaws.com")


def middleware(host: str) -> Middleware:
    """Refuses what a browser sends for another site. ``host`` is the name or address that the emulator listens on."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"This emulator takes no requests from web pages of other sites ({origin}).\n")
        if not _is_own(request.host, host):  # a name that its owner lets point to 127.0.0.1 ("DNS rebinding")
            raise web.HTTPForbidden(text=f"This emulator is not called {request.host}; use its address.\n")
        return await handler(request)

    return guard


def _is_own(authority: str, host: str) -> bool:
    name = urlsplit(f"//{authority}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # A name without a dot (localhost, a service of docker compose) is in nobody's public domain.
        return name == host.lower() or "." not in name or name.endswith(_NOBODYS)
    return True
