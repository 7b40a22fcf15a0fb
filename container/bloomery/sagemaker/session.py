"""Where calls go: an account of AWS, or an emulator. boto3's clients for it, our timeouts, and its errors in words.

To open one for AWS reads the user's configuration as every AWS tool does. To open one for an emulator reads none of it:
no key, no profile and no proxy of the user's is used, and a call that goes astray is refused by AWS.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from bloomery.errors import TargetError
from bloomery.sagemaker.refusal import explained, in_words
from bloomery.sagemaker.request import Request

Target = Literal["aws", "local"]

DEFAULT_URL = "http://127.0.0.1:8099"  # where ``bloomery sagemaker-local`` listens unless told otherwise
DEFAULT_REGION = "us-east-1"  # of an emulator
_KEY = "bloomery-local"  # no key of any account
_ATTEMPTS = 8  # of calls that change or look: SageMaker's control plane throttles early
_CONNECT, _READ = 10, 60  # seconds
_CONNECTIONS = 128  # kept open per client: with boto3's 10, a load of more requests at once connects anew each time
# A container has 60 s for an answer and eight minutes for a stream; who waits a little longer hears why it failed.
_ANSWER, _STREAM = 70, 500
_PROBE = 3.0  # seconds for an emulator to say that it is there
_PRICE_LIST = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}  # the price list has an endpoint in few regions only


@dataclass(frozen=True)
class _Emulator:
    """``s3_url``: itself, or an S3 server beside it, which has ``s3_keys``."""

    url: str
    s3_url: str
    s3_keys: tuple[str, str]


class Session:
    """The clients of one account and region. For several threads at once. Close it, or use it in a ``with`` block."""

    def __init__(self, region: str, made_by: Any, emulator: _Emulator | None = None) -> None:
        """Use ``open``. ``made_by`` is boto3's session."""
        self.region = region
        self._boto3, self._emulator = made_by, emulator
        self._clients: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._account: str | None = None

    @classmethod
    def open(
        cls,
        target: str | None = None,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """``target`` None: an emulator when ``endpoint_url``, or the endpoint that AWS's configuration names, is one on
        this machine; else AWS. ``endpoint_url`` is an emulator's, by default that of AWS_ENDPOINT_URL, or port 8099.

        Raises TargetError: no region, no such profile, no emulator there.
        """
        if target not in (None, "aws", "local"):
            raise TargetError(f"the target is {target!r}; it must be aws or local")
        named = endpoint_url or _named_endpoint(environment)
        if target is None and (endpoint_url or _is_here(named)):
            target = "local"
        if target == "local":
            if profile:
                raise TargetError(f"profile {profile!r} belongs to AWS; with the target local, leave it out")
            return cls._local(named or DEFAULT_URL, region, environment)
        if target == "aws" and (endpoint_url or _is_here(named)):
            raise TargetError(
                f"the target is aws, but the endpoint is {named}: leave --endpoint-url out and unset AWS_ENDPOINT_URL, "
                "or use --target local"
            )
        return cls._aws(target, region, profile, environment)

    @classmethod
    def _local(cls, url: str, region: str | None, environment: Mapping[str, str]) -> Self:
        import boto3.session
        import botocore.session

        url = url.rstrip("/")
        _probe(url)
        region = region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
        # (setting's name in a file, variable, default, conversion): without a variable the user's is not read.
        isolated = {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
        made = boto3.session.Session(
            botocore_session=botocore.session.Session(session_vars=isolated), region_name=region
        )
        s3 = environment.get("AWS_ENDPOINT_URL_S3") or url
        # An S3 server of the user's own beside the emulator has keys of its own.
        own = s3 != url and "AWS_ACCESS_KEY_ID" in environment
        keys = (environment["AWS_ACCESS_KEY_ID"], environment.get("AWS_SECRET_ACCESS_KEY", "")) if own else (_KEY, _KEY)
        return cls(region, made, _Emulator(url, s3, keys))

    @classmethod
    def _aws(cls, target: str | None, region: str | None, profile: str | None, environment: Mapping[str, str]) -> Self:
        import boto3.session

        # boto3 itself looks at AWS_DEFAULT_REGION alone; other tools, and containers, know AWS_REGION.
        region = region or environment.get("AWS_REGION") or None
        with explained("the configuration of AWS"):
            made = boto3.session.Session(profile_name=profile, region_name=region)
            if made.region_name is None:
                raise TargetError(
                    "no region: give --region us-east-1, for instance, or set AWS_REGION, or run `aws configure`"
                )
            session = cls(made.region_name, made)
            url = session.client("sagemaker").meta.endpoint_url
        if not _is_here(url):  # which a profile may name, too
            return session
        session.close()
        if target == "aws":
            raise TargetError(f"the target is aws, but the profile's endpoint_url is {url}: use --target local")
        return cls._local(url, made.region_name, environment)

    @property
    def target(self) -> Target:
        """What ``open`` takes."""
        return "local" if self.is_emulator else "aws"

    @property
    def is_emulator(self) -> bool:
        """Whether nothing here costs anything."""
        return self._emulator is not None

    @property
    def url(self) -> str | None:
        """The emulator's."""
        return self._emulator.url if self._emulator else None

    @property
    def account(self) -> str:
        """The twelve digits. Asks STS once. Raises TargetError."""
        if self._account is None:
            self._account = str(self.call("sts", "GetCallerIdentity")["Account"])
        return self._account

    @property
    def partition(self) -> str:
        """The first word of ARNs after ``arn``: aws, aws-cn, aws-us-gov."""
        return str(self._boto3.get_partition_for_region(self.region))

    @property
    def variables(self) -> dict[str, str]:
        """What takes other AWS clients of a process, such as those of ``bloomery.checkpoints``, to where this session's
        calls go: for ``os.environ.update``, or for a child. An emulator's keep a user's keys out of its way.
        """
        values = {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}
        if self._emulator is None:
            return values | ({} if self._boto3.profile_name == "default" else {"AWS_PROFILE": self._boto3.profile_name})
        here = self._emulator
        key, secret = here.s3_keys  # of all its clients only those of S3 have to have the right ones
        return values | {
            "AWS_ENDPOINT_URL": here.url,
            "AWS_ENDPOINT_URL_S3": here.s3_url,
            "AWS_ENDPOINT_URL_SAGEMAKER": here.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_SESSION_TOKEN": "",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """boto3's client of ``service``: sagemaker, s3, sts, iam, logs, cloudwatch, application-autoscaling,
        service-quotas, pricing, … It tries calls again that fail for a reason that passes. Made at the first use.
        """
        return self._client(service, service, _READ, _ATTEMPTS)

    @property
    def runtime(self) -> Any:
        """boto3's client for invocations. It sends each once: boto3's own way, to try again after 60 s without an
        answer, computes a slow answer three times.
        """
        return self._client("runtime", "sagemaker-runtime", _ANSWER, 1)

    @property
    def streaming_runtime(self) -> Any:
        """As ``runtime``, with the time that a stream may pause."""
        return self._client("streaming", "sagemaker-runtime", _STREAM, 1)

    def send(self, request: Request) -> Any:
        """Make the call; boto3's answer. Raises TargetError and CallError."""
        return self.call(request.service, request.operation, **request.parameters)

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        """``operation`` in the API's spelling (DescribeEndpoint). Raises TargetError and CallError."""
        from botocore import xform_name

        with self.explained(f"{service} {operation}"):
            return getattr(self.client(service), xform_name(operation))(**parameters)

    def pages(self, service: str, operation: str, **parameters: Any) -> Iterator[Any]:
        """The answers of an operation that answers in pages. Raises TargetError and CallError."""
        from botocore import xform_name

        with self.explained(f"{service} {operation}"):
            yield from self.client(service).get_paginator(xform_name(operation)).paginate(**parameters)

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Raise what boto3 raises as TargetError or CallError about ``what``."""
        with explained(what, self.url):
            yield

    def in_words(self, error: Exception, what: str) -> Exception:
        """boto3's ``error`` about ``what`` as one of ours, for who has caught it."""
        return in_words(error, what, self.url)

    def close(self) -> None:
        """Close every client's connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _client(self, key: str, service: str, read_timeout: int, attempts: int) -> Any:
        from botocore.config import Config

        with self._lock:
            if key not in self._clients:
                config = Config(
                    connect_timeout=_CONNECT,
                    read_timeout=read_timeout,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                    tcp_keepalive=True,
                    max_pool_connections=_CONNECTIONS,
                    **({"proxies": {}, "s3": {"addressing_style": "path"}} if self._emulator else {}),
                )
                with self.explained(f"a client of {service}"):
                    self._clients[key] = self._boto3.client(service, config=config, **self._whereto(service))
            return self._clients[key]

    def _whereto(self, service: str) -> dict[str, str]:
        if self._emulator is None:
            return {"region_name": _PRICE_LIST.get(self.partition, self.region)} if service == "pricing" else {}
        here = self._emulator
        url, (key, secret) = (here.s3_url, here.s3_keys) if service == "s3" else (here.url, (_KEY, _KEY))
        return {"endpoint_url": url, "aws_access_key_id": key, "aws_secret_access_key": secret}


def _named_endpoint(environment: Mapping[str, str]) -> str | None:
    if environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return environment.get("AWS_ENDPOINT_URL_SAGEMAKER") or environment.get("AWS_ENDPOINT_URL") or None


def _is_here(url: str | None) -> bool:
    """Whether ``url`` leads to this machine. AWS's own private endpoints do not, whatever they are called."""
    host = urlsplit(url).hostname if url else None
    if not host:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _probe(url: str) -> None:
    """Raise TargetError unless something at ``url`` answers HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TargetError(f"the endpoint is {url!r}; an emulator's is like {DEFAULT_URL}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_PROBE)
    try:
        connection.request("GET", "/_bloomery/faults")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(
            f"no emulator answers at {url} ({error}): run `bloomery sagemaker-local` in another terminal, or give its "
            "address with --endpoint-url or AWS_ENDPOINT_URL"
        ) from error
    finally:
        connection.close()
