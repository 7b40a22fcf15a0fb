"""Who may make the calls that change what is served, and see what may tell of the machine's inside.

A page in a browser on this machine reaches 127.0.0.1 too: by a request across sites, which carries an Origin header,
or through a name of its own that it has made to stand for 127.0.0.1 (DNS rebinding), which shows in the Host header.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from enum import Enum
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from bloomery.errors import ForbiddenError
from bloomery.settings.server import ServerSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# What proxies add. Behind one, everybody's requests come from its own address.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


class Door(Enum):
    """What is served at an address."""

    ALL = "everything"
    INFERENCE = "all but management, which has an address of its own"
    MANAGEMENT = "management alone"


class Permission:
    """Of one address. In SageMaker's multi-model mode the platform itself adds and removes models, from outside."""

    def __init__(self, settings: ServerSettings, door: Door) -> None:
        self._settings, self._door = settings, door
        stated = (settings.cors_allowed_origin or "").split(",")
        # "*" lets any page read answers; it is no leave to change what is served.
        self._origins = {origin.strip() for origin in stated} - {"", "*"}

    def guard(self, handler: Handler, *, multi_model: bool = False) -> Handler:
        """``handler`` for those who may manage. ``multi_model``: it is one of SageMaker's multi-model calls."""

        async def guarded(http: web.Request) -> web.StreamResponse:
            refusal = self.refusal(http, multi_model=multi_model)
            if refusal is not None:
                raise ForbiddenError(f"{http.method} {http.path} is refused: {refusal}")
            return await handler(http)

        return guarded

    def refusal(self, http: web.Request, *, multi_model: bool = False) -> str | None:
        """Why whoever sent ``http`` may not manage, and who may; None when they may."""
        origin = http.headers.get(hdrs.ORIGIN)
        if origin is not None and origin not in self._origins:
            return f"it comes from a page of {origin}, which cors_allowed_origin does not name"
        if multi_model and self._settings.multi_model:
            return None
        if self._door is Door.INFERENCE:
            return f"models are managed at {self._settings.management_address}"
        local = _is_local(http)
        if local and (name := _strange_host(http)) is not None:
            return f"it is addressed to {name!r}; from this machine, write 127.0.0.1 or localhost"
        if self._door is Door.MANAGEMENT:
            return None
        if not local:
            return "only this machine itself (127.0.0.1) may do that; " + _HOW
        if (proxy := next((name for name in _FORWARDED if name in http.headers), None)) is not None:
            return f"it comes through a proxy (header {proxy}), and so could be anybody's; " + _HOW
        return None


_HOW = (
    "give management an address of its own that only administrators reach, for instance "
    "SERVING_MANAGEMENT_ADDRESS=http://127.0.0.1:8081"
)


def _is_local(http: web.Request) -> bool:
    """Whether the peer is on this machine."""
    if _is_unix(http):
        return True
    try:
        address = ipaddress.ip_address(http.remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, of a socket for both families
    return (mapped or address).is_loopback


def _strange_host(http: web.Request) -> str | None:
    """The name in the Host header, if it is one that could have been made to stand for this machine."""
    if _is_unix(http):
        return None  # no page reaches it
    try:
        host = urlsplit(f"//{http.headers.get(hdrs.HOST, 'localhost')}").hostname or ""
    except ValueError:
        return http.headers[hdrs.HOST]
    if host == "localhost" or host.endswith(".localhost"):
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


def _is_unix(http: web.Request) -> bool:
    sock = http.transport.get_extra_info("socket") if http.transport is not None else None
    return sock is not None and sock.family == getattr(socket, "AF_UNIX", None)
