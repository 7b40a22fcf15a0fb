"""Cross-origin requests: which pages of other sites may read answers. Off unless cors_allowed_origin is set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from bloomery.settings.server import ServerSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_METHODS = "GET, POST, OPTIONS"
_HEADERS = "Content-Type, Accept, Authorization, X-Amzn-SageMaker-Custom-Attributes"
_MAX_AGE = "600"  # seconds a browser may remember a preflight's answer


def policy(settings: ServerSettings) -> Policy | None:
    """How answers are marked, if the settings name an origin."""
    return None if settings.cors_allowed_origin is None else Policy(settings)


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a preflight, so that it never reaches a model (which takes any method)."""
    wanted = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if request.method == hdrs.METH_OPTIONS and hdrs.ORIGIN in request.headers and wanted:
        return web.Response(status=204)
    return await handler(request)


class Policy:
    """Of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._origins = [origin.strip() for origin in (settings.cors_allowed_origin or "").split(",")]
        self._methods = settings.cors_allowed_methods or _METHODS
        self._headers = settings.cors_allowed_headers or _HEADERS

    def mark(self, http: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Say that the page may read this, if it is one that may; others get the answer without the mark."""
        origin = self._allowed(http.headers.get(hdrs.ORIGIN))
        if origin is None:
            return
        answer.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        answer.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "*"
        if origin != "*":
            answer.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if hdrs.ACCESS_CONTROL_REQUEST_METHOD in http.headers:
            answer.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = self._methods
            answer.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = self._headers
            answer.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _MAX_AGE

    def _allowed(self, origin: str | None) -> str | None:
        if origin is None:
            return None
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else None
