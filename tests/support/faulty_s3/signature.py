"""Signature version 4, from the server's side: who asks, and whether they hold the secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from tests.support.faulty_s3.answers import S3Error

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]*)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=(\w{64})"
)
_SKEW = 15 * 60  # seconds that S3 allows


class Credentials:
    """The keys that are known, and those that have expired."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)
        self._expired: set[str] = set()
        self._lock = threading.Lock()

    def expire(self, headers: Mapping[str, str]) -> None:
        """The token of this request, or its key when it has none, has expired."""
        with self._lock:
            self._expired.add(_holder(headers))

    def check(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> str:
        """The region that the request is signed for; raises S3Error as S3 refuses. Header names in lower case; path and
        query as they came."""
        match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if match is None:
            raise S3Error(403, "AccessDenied", "Access Denied")
        key, day, region, signed, given = match.groups()
        if key not in self._keys:
            raise S3Error(
                403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
            )
        self.check_fresh(headers)
        stamp = headers.get("x-amz-date", "")
        _check_time(stamp)
        if any(name.startswith("x-amz-") and name not in signed.split(";") for name in headers):
            raise S3Error(403, "AccessDenied", "There were headers present in the request which were not signed")
        scope = f"{day}/{region}/s3/aws4_request"
        canonical = _canonical_request(method, path, query, headers, signed)
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        if not hmac.compare_digest(_signature(self._keys[key], day, region, text), given):
            raise S3Error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        content = headers.get("x-amz-content-sha256", "")
        if content != "UNSIGNED-PAYLOAD" and content != hashlib.sha256(body).hexdigest():
            raise S3Error(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header is wrong.")
        return region

    def check_fresh(self, headers: Mapping[str, str]) -> None:
        """Raise S3Error when the credentials of this request have expired."""
        with self._lock:
            expired = _holder(headers) in self._expired
        if expired:
            raise S3Error(400, "ExpiredToken", "The provided token has expired.")


def _holder(headers: Mapping[str, str]) -> str:
    match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    return headers.get("x-amz-security-token") or (match[1] if match else "")


def _check_time(stamp: str) -> None:
    try:
        then = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise S3Error(403, "AccessDenied", "AWS authentication requires a valid x-amz-date header") from None
    if abs((datetime.now(UTC) - then).total_seconds()) > _SKEW:
        raise S3Error(
            403, "RequestTimeTooSkewed", "The difference between the request time and the server's is too large."
        )


def _canonical_request(method: str, path: str, query: str, headers: Mapping[str, str], signed: str) -> str:
    pairs = sorted(
        (quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~"))
        for name, _, value in (part.partition("=") for part in query.split("&") if part)
    )
    lines = [method, quote(unquote(path), safe="/-_.~"), "&".join(f"{name}={value}" for name, value in pairs)]
    lines += [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed.split(";")]
    return "\n".join([*lines, "", signed, headers.get("x-amz-content-sha256", "")])


def _signature(secret: str, day: str, region: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
