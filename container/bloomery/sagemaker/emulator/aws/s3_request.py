"""What an S3 request writes: which bucket, which object, if any."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import web

_SERVICE = re.compile(r"Credential=[^/]+/\d{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request")
_QUERY_SERVICE = re.compile(r"^[^/]+/\d{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request$")
_HOST = re.compile(r"^(?P<bucket>.+)\.(s3[.-].*|localhost)$")  # bucket.s3.amazonaws.com, bucket.localhost
# In the query of what concerns a bucket or an object itself (the last three sign it); others name a part or a property
# of it, such as ?partNumber and ?tagging.
_ITSELF = re.compile(r"^(x-.*|versionId|AWSAccessKeyId|Signature|Expires)$", re.IGNORECASE)
_COMPLETES = {"POST": {"uploadId", "delete"}}  # the end of a multipart upload; the deletion of several objects


@dataclass(frozen=True)
class S3Write:
    """A request that may have changed a bucket (``key`` is empty) or an object."""

    method: str
    bucket: str
    key: str


def parse(http: web.Request) -> S3Write | None:
    """None for another service, for what concerns no bucket, and for what changes no bucket or object itself."""
    authorization = http.headers.get("Authorization", "")
    signed = _SERVICE.search(authorization) or _QUERY_SERVICE.match(http.query.get("X-Amz-Credential", ""))
    if signed[1] != "s3" if signed else "X-Amz-Target" in http.headers:
        return None
    parts = {name for name in http.query if not _ITSELF.match(name)}
    if not parts <= _COMPLETES.get(http.method, set()):
        return None
    path = http.path.removeprefix("/")  # decoded
    if host := _HOST.match(http.host.rsplit(":", 1)[0]):
        return S3Write(http.method, host["bucket"], path)
    bucket, _, key = path.partition("/")
    return S3Write(http.method, bucket, key) if bucket else None
