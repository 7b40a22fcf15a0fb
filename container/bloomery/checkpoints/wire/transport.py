"""How a connection to a server is made: timeouts, proxies, certificates. Read once, from the environment."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from bloomery.errors import CheckpointError, ConfigurationError

STALL_TIMEOUT = "BLOOMERY_STALL_TIMEOUT"
CONNECT_TIMEOUT = "BLOOMERY_CONNECT_TIMEOUT"
_PROXY_ANSWER_LIMIT = 16 << 10


@dataclass(frozen=True)
class Transport:
    """``connect_timeout``: seconds for TCP, proxy and TLS. ``stall_timeout``: seconds without a byte after which a
    connection is given up. ``ca_bundle``: a PEM file to trust instead of the system's store. ``proxies``: the proxy's
    URL by scheme.
    """

    connect_timeout: float = 10.0
    stall_timeout: float = 15.0
    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Transport:
        """As the environment says; raises ConfigurationError. SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's own: they
        move the system's store.
        """
        bundle = None if environment.get("SSL_CERT_FILE") else environment.get("REQUESTS_CA_BUNDLE")
        return cls(
            _seconds(environment, CONNECT_TIMEOUT, cls.connect_timeout),
            _seconds(environment, STALL_TIMEOUT, cls.stall_timeout),
            bundle or None,
            urllib.request.getproxies_environment(),
        )


@dataclass(frozen=True)
class Origin:
    """Where one connection leads."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of ``url``; raises CheckpointError when it is none of http and https."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:  # never with the address itself, which may hold what is secret
            raise CheckpointError(f"an address cannot be understood: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise CheckpointError(f"{shown(url)} is not an http or https address")
        return cls(parts.scheme, host, port or (443 if parts.scheme == "https" else 80))

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def shown(url: str) -> str:
    """``url`` fit for people and logs: a query may hold a signature, user information a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def connect(origin: Origin, transport: Transport) -> tuple[socket.socket, str | None]:
    """A connected socket, and the proxy that requests must be addressed to (plain http only). Raises OSError, and
    CheckpointError for a proxy or a bundle that cannot be used.
    """
    proxy = _proxy(origin, transport)
    where = Origin.of(proxy) if proxy else origin
    if where.scheme == "https" and proxy:
        raise CheckpointError(f"the proxy {shown(proxy)} speaks TLS itself: only http:// proxies can be used")
    try:
        opened = socket.create_connection((where.host, where.port), transport.connect_timeout)
    except TimeoutError:
        raise TimeoutError(f"no connection to {where.authority} within {transport.connect_timeout:g} s") from None
    try:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if origin.scheme == "http":
            return opened, proxy
        if proxy:
            _tunnel(opened, origin, proxy)
        context = _tls(transport.ca_bundle, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return context.wrap_socket(opened, server_hostname=origin.host), None
    except TimeoutError:
        opened.close()
        raise TimeoutError(f"{where.authority} was silent for {transport.connect_timeout:g} s") from None
    except BaseException:
        opened.close()
        raise


def proxy_authorization(proxy: str) -> dict[str, str]:
    """The header that gives the proxy the user information of its URL."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _proxy(origin: Origin, transport: Transport) -> str | None:
    proxy = transport.proxies.get(origin.scheme) or transport.proxies.get("all")
    no_proxy = {"no": transport.proxies.get("no", "")}
    if not proxy or urllib.request.proxy_bypass(f"{origin.host}:{origin.port}", no_proxy):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _tunnel(opened: socket.socket, origin: Origin, proxy: str) -> None:
    """Ask the proxy for a way through to ``origin``."""
    target = f"{f'[{origin.host}]' if ':' in origin.host else origin.host}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines += [f"{name}: {value}" for name, value in proxy_authorization(proxy).items()]
    opened.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = opened.recv(1)  # one by one: what comes after the answer belongs to TLS
        if not byte or len(answer) > _PROXY_ANSWER_LIMIT:
            raise ConnectionError(f"the proxy {shown(proxy)} closed the connection")
        answer += byte
    status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or status[1] != "200":
        told = " ".join(status[1:]) or "no HTTP"
        raise CheckpointError(
            f"the proxy {shown(proxy)} refuses a connection to {target} ({told}): check HTTPS_PROXY, or name the host "
            "in NO_PROXY"
        )


@lru_cache(maxsize=8)
def _tls(ca_bundle: str | None, *store: str | None) -> ssl.SSLContext:
    """To read the system's store takes 30 ms. ``store``: the variables that move it."""
    try:
        context = ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise CheckpointError(
            f"the certificates in {ca_bundle} cannot be read ({error}): name a PEM file in AWS_CA_BUNDLE"
        ) from error
    if ca_bundle is None and not context.cert_store_stats()["x509_ca"] and not _has_store():
        context.load_verify_locations(_bundled())  # a slim image without ca-certificates
    return context


def _has_store() -> bool:
    """Whether OpenSSL has a directory of certificates, which it reads only when it needs one."""
    paths = ssl.get_default_verify_paths()
    return bool(paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath))


def _bundled() -> str:
    """Mozilla's certificates, which botocore brings along."""
    import botocore.httpsession

    return str(botocore.httpsession.where())


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name}={text!r} is no number of seconds: write for example {default:g}")
    return value
