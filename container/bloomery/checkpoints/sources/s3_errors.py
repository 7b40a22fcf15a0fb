"""What S3 and botocore refuse, in sentences that say what to do."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.checkpoints.retry import retry_after
from bloomery.checkpoints.source import ChangedError, TransientError, UnreachableError
from bloomery.errors import CheckpointError

READING = "s3:ListBucket on {bucket} and s3:GetObject on {bucket}/*"
_SLOW = {
    "SlowDown", "503", "429", "TooManyRequests", "Throttling", "ThrottlingException", "RequestThrottled",
    "RequestLimitExceeded", "BandwidthLimitExceeded",
}  # fmt: skip
_PASSING = {"RequestTimeout", "InternalError", "ServiceUnavailable", "PriorRequestNotComplete", "OperationAborted"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}


class DeniedError(CheckpointError):
    """Who asks may not do this."""


_ARN = re.compile(r"arn:aws[\w-]*:(?:iam|sts)::[^\s\"',]+")


@dataclass(frozen=True)
class Refusal:
    """An answer of S3 that is an error. ``code``: S3's word for it, or the status where it gives none."""

    status: int
    code: str
    message: str = ""
    region: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    @classmethod
    def read(cls, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> Refusal:
        """From an answer over HTTP."""
        found: dict[str, str] = {}
        try:
            if b"<!DOCTYPE" not in body:
                for element in ElementTree.fromstring(body):
                    found[element.tag.rpartition("}")[2]] = (element.text or "").strip()
        except ElementTree.ParseError:
            pass  # a proxy's page, or nothing
        code = found.get("Code") or headers.get("x-amz-error-code") or str(status)
        region = headers.get("x-amz-bucket-region") or found.get("Region")
        return cls(status, code, found.get("Message") or reason, region or None, headers)

    @classmethod
    def of(cls, error: Any) -> Refusal:
        """From botocore's ClientError."""
        told, answer = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        headers = {str(name).lower(): str(value) for name, value in (answer.get("HTTPHeaders") or {}).items()}
        region = headers.get("x-amz-bucket-region") or told.get("Region")
        code, status = str(told.get("Code", "")), int(answer.get("HTTPStatusCode") or 0)
        return cls(status, code or str(status), str(told.get("Message", "")), region, headers)

    @property
    def expired(self) -> bool:
        """Whether new credentials may help."""
        return self.code in _EXPIRED

    @property
    def moved(self) -> bool:
        """Whether the bucket is in another region, which ``region`` may tell."""
        return self.status in (301, 307) or self.code in ("PermanentRedirect", "AuthorizationHeaderMalformed")


def refused(
    refusal: Refusal,
    where: str,
    bucket: str,
    principal: Callable[[], str | None],
    *,
    done: str = "fetched",
    rights: str = READING,
) -> CheckpointError:
    """The error to raise. ``where``: what was asked for ("s3://b/k, bytes 0-99"); ``principal``: who asks, by ARN;
    ``done``: what could not be, and ``rights``: which that needs."""
    code = refusal.code
    told = f"S3 answered {refusal.status} {code}" + (f": {refusal.message}" if refusal.message else "")
    if code in ("412", "PreconditionFailed"):
        return ChangedError(f"{where}: the object was replaced while it was fetched: retry when the upload is complete")
    if code in ("404", "NoSuchKey"):
        return ChangedError(f"{where}: the object is gone since it was listed: upload the checkpoint again and retry")
    if code in ("416", "InvalidRange"):
        return ChangedError(f"{where}: the object is shorter than it was when it was listed")
    slow = code in _SLOW or refusal.status in (429, 503)
    if slow or code in _PASSING or refusal.status in (408, 500, 502, 504):
        return TransientError(f"{where}: {told}", slow_down=slow, after=retry_after(refusal.headers.get("retry-after")))
    remedy = _REMEDIES.get(code)
    if code in ("AccessDenied", "403", "AllAccessDisabled", "AccountProblem"):
        denied = _denied(refusal, bucket, principal, rights)
        return DeniedError(f"{where} could not be {done}: {denied} ({told})")
    if code == "RequestTimeTooSkewed":
        remedy = _skewed(refusal)
    elif refusal.moved:
        there = f"is in {refusal.region}" if refusal.region else "is in another region"
        remedy = f"the bucket {bucket} {there}: set AWS_REGION to its region, and check AWS_ENDPOINT_URL"
    if remedy is None:
        return CheckpointError(f"{where} could not be {done}: {told}")
    return CheckpointError(f"{where} could not be {done}: {remedy.format(bucket=bucket)} ({told})")


def failed(
    error: Exception,
    where: str,
    bucket: str,
    principal: Callable[[], str | None],
    *,
    done: str = "fetched",
    rights: str = READING,
) -> CheckpointError:
    """The error to raise for any of botocore's, as ``refused`` has it."""
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        return refused(Refusal.of(error), where, bucket, principal, done=done, rights=rights)
    kind = type(error).__name__
    for names, remedy in _OF_BOTOCORE.items():
        if kind in names:
            cause = CheckpointError if names not in _UNREACHABLE else UnreachableError
            return cause(f"{where} could not be {done}: {remedy.format(bucket=bucket)} ({error})")
    return CheckpointError(f"{where} could not be {done}: {kind}: {error}")


def _denied(refusal: Refusal, bucket: str, principal: Callable[[], str | None], rights: str) -> str:
    named = _ARN.search(refusal.message)
    who = named.group() if named else principal()
    asks = f"access is denied to {who}" if who else "access is denied"
    rights = f"the role or key needs {rights.format(bucket=bucket)}"
    if "kms:" in refusal.message.lower():
        return f"{asks}: the objects are encrypted with a KMS key, which the role or key may not use (kms:Decrypt)"
    return f"{asks}: {rights}; in a requester-pays bucket also set AWS_REQUEST_PAYER=requester"


def _skewed(refusal: Refusal) -> str:
    there = refusal.headers.get("date")
    return "this machine's clock is wrong" + (f": S3's says {there}" if there else "") + "; set it (NTP) and retry"


_REMEDIES = {
    "NoSuchBucket": "the bucket {bucket} does not exist: check its name, its account and AWS_ENDPOINT_URL",
    "NoSuchAccessPoint": "the access point {bucket} does not exist: check its name, account and region",
    "InvalidObjectState": "the object is archived (Glacier): restore it first (aws s3api restore-object)",
    "InvalidAccessKeyId": "the access key is unknown: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    **dict.fromkeys(_EXPIRED, "the session token has expired: get new credentials"),
    "InvalidBucketName": "the bucket's name is not valid: write s3://bucket/prefix",
}
_UNREACHED = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError")
_UNREACHABLE = (_UNREACHED,)
_OF_BOTOCORE = {
    ("NoCredentialsError",): "no AWS credentials were found: give the machine or the endpoint a role, or set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_NO_SIGN_REQUEST=true)",
    ("PartialCredentialsError",): "the AWS credentials are incomplete: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ("CredentialRetrievalError", "MetadataRetrievalError"): "the source of the AWS credentials did not give any: check "
    "the role, the profile or the command that makes them",
    ("ProfileNotFound",): "AWS_PROFILE names a profile that is in no configuration file",
    ("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "SSOError", "LoginError"): "the login of "
    "the AWS profile has expired: log in anew (aws sso login)",
    _UNREACHED: "the S3 endpoint cannot be reached: check the network, the region and AWS_ENDPOINT_URL",
    ("ProxyConnectionError",): "the proxy cannot be reached: check HTTPS_PROXY and NO_PROXY",
    ("SSLError",): "the certificate of the S3 endpoint is not trusted: name its authority's file in AWS_CA_BUNDLE",
    ("ParamValidationError", "UnsupportedS3ArnError", "InvalidEndpointConfigurationError"): "the name is not valid: "
    "write s3://bucket/prefix",
    (
        "InvalidRegionError",
        "UnknownRegionError",
        "EndpointProviderError",
    ): "there is no endpoint for this region: check AWS_REGION",
    ("NoRegionError",): "no region is known: set AWS_REGION",
    ("UnsupportedS3ControlArnError", "MissingDependencyException"): "this kind of access point cannot be used here",
}
