"""Who may read a bucket, and where it is: botocore's client, and requests of ours that it has signed.

botocore prepares a GetObject down to its signature and is stopped before it sends (its event ``before-send``). So
credentials and their refreshing, regions, endpoints, addressing styles, access points and requester pays work as in
every other AWS tool, and the bytes still come over connections of ours. One request costs 0.5 ms.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bloomery.checkpoints.sources.reading import persistently
from bloomery.checkpoints.sources.s3_errors import Refusal, failed, refused
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

REQUESTER_PAYS = "AWS_REQUEST_PAYER"  # as GDAL and obstore have it; the AWS tools take it only as an option
UNSIGNED = "AWS_NO_SIGN_REQUEST"  # as GDAL has it; the AWS command line's --no-sign-request
POOL = 8  # control calls at once
_ATTEMPTS = 3  # of botocore, in each of ours: what stalls is given up within a minute
_PRINCIPAL_SECONDS = 3.0
_TRUE = ("1", "true", "yes", "requester")


@dataclass(frozen=True)
class SignedGet:
    """A request ready to be sent. ``generation``: of the credentials that signed it; ``region``: that was asked."""

    url: str
    headers: Mapping[str, str]
    generation: int
    region: str


class S3Access:
    """To one bucket or access point. For several threads at once."""

    def __init__(
        self,
        bucket: str,
        *,
        requester_pays: bool | None = None,
        environment: Mapping[str, str] = os.environ,
        **config: Any,
    ) -> None:
        """``config``: of botocore, for a client with other timeouts or attempts."""
        self._bucket = bucket
        self._config = {"retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS}, "max_pool_connections": POOL}
        self._config |= config
        pays = environment.get(REQUESTER_PAYS, "").lower() in _TRUE if requester_pays is None else requester_pays
        self.parameters = {"Bucket": bucket, **({"RequestPayer": "requester"} if pays else {})}
        self._unsigned = environment.get(UNSIGNED, "").lower() in _TRUE
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._region: str | None = None
        self._generation = 0

    @property
    def client(self) -> Any:
        """botocore's client. Raises what botocore raises."""
        return self._current().client

    @property
    def ca_bundle(self) -> str | None:
        """The certificates that AWS's own configuration names. Raises CheckpointError."""
        with self.explained(f"s3://{self._bucket}"):
            return self._current().ca_bundle

    def call(self, where: str, operation: str, **parameters: Any) -> Any:
        """botocore's answer to a call about the bucket. ``where`` is named in errors. Raises CheckpointError."""

        def attempt() -> Any:
            with self.explained(where):
                made = self._current()
                try:
                    return getattr(made.client, operation)(**self.parameters, **parameters)
                except made.client.exceptions.ClientError as error:
                    if not (Refusal.of(error).expired and self.renew(made.generation)):
                        raise
                return getattr(self._current().client, operation)(**self.parameters, **parameters)

        return persistently(attempt)

    def get(self, key: str, etag: str, byte_range: str) -> SignedGet:
        """A signed GET of a range of ``key``, if it still has ``etag``. Raises CheckpointError."""
        with self.explained(f"s3://{self._bucket}/{key}"):
            made = self._current()
            try:
                made.client.get_object(**self.parameters, Key=key, IfMatch=etag, Range=byte_range)
            except _Stopped as stopped:
                return SignedGet(stopped.url, stopped.headers, made.generation, made.client.meta.region_name)
        raise RuntimeError("botocore has sent a request that it should only have signed")

    def remedied(self, refusal: Refusal, used: SignedGet) -> bool:
        """Whether ``used``, signed anew, may be answered: with other credentials, in another region."""
        with self.explained(f"s3://{self._bucket}"):
            if refusal.expired:
                return self.renew(used.generation)
            return refusal.moved and refusal.region is not None and self._relocated(used.region, refusal.region)

    def refused(self, refusal: Refusal, where: str) -> CheckpointError:
        """The error to raise for an answer about ``where``."""
        return refused(refusal, where, self._bucket, self.principal)

    @contextmanager
    def explained(self, where: str) -> Iterator[None]:
        """Raise what botocore raises as a CheckpointError about ``where``."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise failed(error, where, self._bucket, self.principal) from error

    def renew(self, generation: int) -> bool:
        """Read the credentials anew, unless that has happened since ``generation``; whether they are others now."""
        with self._lock:
            if self._generation != generation or self._made is None:
                return True
            before = self._made.identity()
            self._generation += 1
            self._made = self._make()
            return self._made.identity() != before

    def close(self) -> None:
        """Close the connections of control calls; they open again when they are needed."""
        with self._lock:
            if self._made is not None:
                self._made.client.close()

    def _relocated(self, asked: str, region: str) -> bool:
        """Turn to the ``region`` where the bucket is, once; False when it is the one that was ``asked``."""
        with self._lock:
            if region == asked or self._region not in (None, region):
                return False
            if self._region is None:
                log.info("%s is in %s, not in %s: set AWS_REGION to save a request", self._bucket, region, asked)
                self._region, self._made = region, None
            return True

    def principal(self) -> str | None:
        """The ARN that AWS knows us by, None when it does not tell."""
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        config = Config(
            connect_timeout=_PRINCIPAL_SECONDS, read_timeout=_PRINCIPAL_SECONDS, retries={"total_max_attempts": 1}
        )
        try:
            made = self._current()
            region = made.client.meta.region_name
            region = "us-east-1" if region == "aws-global" else region
            sts = made.session.create_client("sts", region_name=region, config=config)
            try:
                return str(sts.get_caller_identity()["Arn"])
            finally:
                sts.close()
        except (BotoCoreError, ClientError, KeyError):
            return None

    def _current(self) -> _Made:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> _Made:
        from botocore import UNSIGNED as ANONYMOUS
        from botocore.config import Config
        from botocore.session import Session

        signing = {"signature_version": ANONYMOUS} if self._unsigned else {}
        config = Config(**self._config, **signing)
        logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where it found credentials, every time
        session = Session()  # without boto3, which would import its transfers, too
        client = session.create_client("s3", region_name=self._region, config=config)
        client.meta.events.register("before-send.s3.GetObject", _stop)
        return _Made(session, client, self._generation)


@dataclass(frozen=True)
class _Made:
    """A session and a client from one reading of the configuration."""

    session: Any
    client: Any
    generation: int

    @property
    def ca_bundle(self) -> str | None:
        bundle = self.session.get_config_variable("ca_bundle")
        return str(bundle) if bundle else None

    def identity(self) -> tuple[str, str | None] | None:
        """What tells one set of credentials from another."""
        credentials = self.session.get_credentials()
        if credentials is None:
            return None
        frozen = credentials.get_frozen_credentials()
        return frozen.access_key, frozen.token


class _Stopped(Exception):
    """A request is signed, and goes no further in botocore."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(url.partition("?")[0])
        self.url, self.headers = url, headers


def _stop(request: Any, **_: object) -> None:
    headers = {
        name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
        if name.lower() != "host"  # the connection's own
    }
    raise _Stopped(request.url, headers)
