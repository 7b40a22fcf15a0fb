"""What is not ours goes to moto: both bodies pass as they come, and S3 writes are kept in the journal."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bloomery.sagemaker.emulator.aws import s3_request
from bloomery.sagemaker.emulator.aws.s3_journal import S3Journal

logger = logging.getLogger(__name__)
_CHUNK = 256 * 1024  # bytes
# Of one connection, not of the message (RFC 9110, 7.6.1); and what aiohttp has answered already.
_HOP = {
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_WRITES = {hdrs.METH_PUT, hdrs.METH_POST, hdrs.METH_DELETE}


class Proxy:
    """Hands requests on to ``url``."""

    def __init__(self, url: str, session: aiohttp.ClientSession, journal: S3Journal) -> None:
        self._url, self._session, self._journal = url, session, journal

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """The answer, passed on."""
        try:
            async with self._session.request(
                http.method,
                URL(self._url + http.raw_path, encoded=True),
                headers=_passed_on(http.headers),
                data=http.content if http.body_exists else None,
                allow_redirects=False,
                skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT, hdrs.CONTENT_TYPE),
            ) as answer:
                write = s3_request.parse(http) if http.method in _WRITES and answer.ok else None
                if write is None:
                    return await _pass_on(http, answer)
                body = await answer.read()
                try:
                    # Before the client hears that it is done: a write that was acknowledged survives a kill.
                    await asyncio.shield(self._journal.keep(write))
                except OSError as error:
                    logger.error("S3's journal cannot keep %s/%s: %s", write.bucket, write.key, error)
                    raise web.HTTPInsufficientStorage(text=f"the emulator cannot keep this: {error}\n") from error
                return web.Response(status=answer.status, headers=_passed_on(answer.headers), body=body or None)
        except aiohttp.ClientError as error:
            logger.warning("moto did not answer %s %s: %s", http.method, http.path, error)
            raise web.HTTPBadGateway(text=f"moto did not answer: {error}") from error


async def _pass_on(http: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_passed_on(answer.headers))
    await response.prepare(http)
    if http.method != hdrs.METH_HEAD:  # it announces a length and has no body
        async for chunk in answer.content.iter_chunked(_CHUNK):
            await response.write(chunk)
    await response.write_eof()
    return response


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP)
