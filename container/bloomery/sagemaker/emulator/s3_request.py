"""Which bucket and object an S3 request is about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import web

_SERVICE = re.compile(r"Credential=[^/]+/\d{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request")
_QUERY_SERVICE = re.compile(r"^[^/]+/\d{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request$")
_HOST = re.compile(r"^(?P<bucket>.+)\.(s3[.-].*|localhost)$")  # bucket.s3.amazonaws.com, bucket.localhost


@dataclass(frozen=True)
class S3Write:
    """A request that may have changed a bucket (``key`` is empty) or an object."""

    method: str
    bucket: str
    key: str


def parse(http: web.Request) -> S3Write | None:
    """None for another service, and for what concerns no bucket."""
    authorization = http.headers.get("Authorization", "")
    signed = _SERVICE.search(authorization) or _QUERY_SERVICE.match(http.query.get("X-Amz-Credential", ""))
    if signed[1] != "s3" if signed else "X-Amz-Target" in http.headers:
        return None
    path = http.path.lstrip("/")  # decoded
    if host := _HOST.match(http.host.rsplit(":", 1)[0]):
        return S3Write(http.method, host["bucket"], path)
    bucket, _, key = path.partition("/")
    return S3Write(http.method, bucket, key) if bucket else None
