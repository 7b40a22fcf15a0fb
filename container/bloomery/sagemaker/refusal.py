"""What boto3 raises, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bloomery.errors import AccessError, CallError, SageMakerError, TargetError

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
_UNKNOWN_KEY = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "AuthFailure",
)
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "403")
_LOG_IN = "log in again (`aws sso login`, or however you get your keys), or name another profile with --profile"
_NO_KEYS = (
    "no credentials: run `aws configure` or `aws sso login`, set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or use --target local for the emulator"
)
# By the names of botocore's classes, so that none has to be imported before something went wrong.
_CREDENTIALS = {
    "NoCredentialsError": _NO_KEYS,
    "NoAuthTokenError": _NO_KEYS,
    "PartialCredentialsError": _NO_KEYS,
    "CredentialRetrievalError": _LOG_IN,
    "TokenRetrievalError": _LOG_IN,
    "SSOError": _LOG_IN,
    "SSOTokenLoadError": _LOG_IN,
    "UnauthorizedSSOTokenError": _LOG_IN,
    "LoginTokenLoadError": _LOG_IN,
    "LoginRefreshTokenError": _LOG_IN,
    "ProfileNotFound": "`aws configure list-profiles` lists those there are",
    "NoRegionError": "give --region, or set AWS_REGION",
    "InvalidRegionError": "give a region such as us-east-1",
    "ConfigParseError": "repair that file",
}
_UNREACHED = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ProxyConnectionError",
    "SSLError",
    "ConnectionClosedError",
)


@contextmanager
def explained(what: str, emulator: str | None = None) -> Iterator[None]:
    """Raise what boto3 raises as TargetError or CallError about ``what``; ``emulator``: its URL, if it is one."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise in_words(error, what, emulator) from error


def in_words(error: Exception, what: str, emulator: str | None = None) -> SageMakerError:
    """boto3's ``error`` about ``what`` as one of ours."""
    found = _in_words(error, what, emulator)
    found.uncertain = _is_uncertain(error)
    return found


def _is_uncertain(error: Exception) -> bool:
    """Whether the service may have done what it was asked: at this attempt, or at one before it."""
    from botocore.exceptions import ClientError, HTTPClientError

    if not isinstance(error, ClientError):
        return isinstance(error, HTTPClientError)
    said = error.response.get("ResponseMetadata", {})
    return bool(said.get("RetryAttempts")) or said.get("HTTPStatusCode", 0) >= 500


def _in_words(error: Exception, what: str, emulator: str | None) -> SageMakerError:
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        code = str(response["Error"].get("Code", ""))
        return _refused(code, str(response["Error"].get("Message", "")) or str(error), what)
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _CREDENTIALS), None)
    if name is not None:
        said = "" if _CREDENTIALS[name] is _NO_KEYS else f"{error}: "
        return TargetError(f"{what}: {said}{_CREDENTIALS[name]}")
    if type(error).__name__ in _UNREACHED:
        if emulator:
            return TargetError(f"{what}: the emulator at {emulator} is gone ({error}): run `bloomery sagemaker-local`")
        return TargetError(f"{what}: {error}: look at the network, the proxy and the region")
    return CallError(f"{what}: {error}", type(error).__name__)


def _refused(code: str, message: str, what: str) -> SageMakerError:
    if code in _EXPIRED:
        return TargetError(f"{what}: your credentials have expired ({message}): {_LOG_IN}")
    if code in _UNKNOWN_KEY:
        return TargetError(f"{what}: AWS does not take your credentials ({code}: {message}): {_LOG_IN}")
    if code in _DENIED:
        return AccessError(
            f"{what}: {message or code}: your user lacks this permission; `bloomery policies` prints a policy with all "
            "that bloomery needs",
            code,
        )
    return CallError(f"{what}: {message} ({code})" if code else f"{what}: {message}", code, message)
