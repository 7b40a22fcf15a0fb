"""The last touch before any response leaves: the headers that every answer of this server has."""

from __future__ import annotations

from aiohttp import hdrs, web
from multidict import CIMultiDict

from bloomery.http_api import cors
from bloomery.http_api.request import REQUEST_ID, identify
from bloomery.settings.server import ServerSettings

NO_CONTENT_TYPE = web.ResponseKey("no_content_type", bool)
_SERVER = "bloomery"
_CACHING = {
    hdrs.CACHE_CONTROL: "no-cache, no-store, must-revalidate, private",
    hdrs.PRAGMA: "no-cache",
    hdrs.EXPIRES: "Thu, 01 Jan 1970 00:00:00 UTC",
}
_LINES = "".join(f"{name}: {value}\r\n" for name, value in {hdrs.SERVER: _SERVER, **_CACHING}.items())


class Finish:
    """Of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._request_id = settings.request_id_header_key
        self._cross_origin = cors.policy(settings)

    def __call__(self, http: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Complete the headers of ``answer``; what a handler says about caching is left as it is."""
        answer.headers[self._request_id] = self._identifier(http)
        answer.headers[hdrs.SERVER] = _SERVER
        for name, value in _CACHING.items():
            answer.headers.setdefault(name, value)
        if answer.get(NO_CONTENT_TYPE):
            # The handler set none, so there is none, as in DJLServing; aiohttp would say application/octet-stream.
            answer.headers.popall(hdrs.CONTENT_TYPE, None)
        if self._cross_origin is not None:
            self._cross_origin.mark(http, answer)

    def lines(self, http: web.BaseRequest, headers: CIMultiDict[str]) -> str | None:
        """The same as lines to be sent beside ``headers``; None where these have a say in it, or another origin has."""
        if self._cross_origin is not None:
            return None
        if headers and (self._request_id in headers or any(name in headers for name in _CACHING)):
            return None
        return f"{self._request_id}: {self._identifier(http)}\r\n{_LINES}"

    def _identifier(self, http: web.BaseRequest) -> str:
        return http.get(REQUEST_ID) or identify(http, self._request_id)


class HttpRequest(web.Request):
    """A request whose responses are finished, whichever way they were made; each server has a subclass of its own."""

    finish: Finish

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # on_response_prepare, the public place for it, is heard only behind the application's router.
        self.finish(self, response)
