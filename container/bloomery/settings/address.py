"""Where a server listens: ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:/path``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from bloomery.errors import ConfigurationError

_LONGEST_PATH = 103  # bytes of a unix socket's path: 107 on Linux, 103 on macOS
FORMS = "http://HOST:PORT, https://HOST:PORT or unix:/absolute/path"


@dataclass(frozen=True)
class Address:
    """``host`` and ``port`` of http and https; ``path`` of a unix socket, which speaks plain HTTP."""

    scheme: Literal["http", "https", "unix"] = "http"
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """As DJLServing writes it."""
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


DEFAULT = Address("http", "127.0.0.1", 8080)


def parse_address(text: str) -> Address:
    """The address that ``text`` writes; without a scheme it is http. Raises ValueError with the forms there are."""
    text = text.strip()
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(FORMS) from None
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ValueError(FORMS)
    if parts.scheme == "http":
        return Address("http", host, 8080 if port is None else port)
    if parts.scheme == "https":
        return Address("https", host, 8443 if port is None else port)
    raise ValueError(FORMS)


def _unix(path: str) -> Address:
    path = path[2:] if path.startswith("//") else path  # unix:///path is how some write it
    if not Path(path).is_absolute() or path.endswith("/"):
        raise ValueError(f"{FORMS}; a unix socket's path is absolute and names a file")
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(f"{FORMS}; a unix socket's path may have {_LONGEST_PATH} bytes at most")
    return Address("unix", path=path)


def read_port(text: str, origin: str) -> int:
    """A TCP port; 0 lets the system choose."""
    if text.strip().isdecimal() and int(text) < 65536:
        return int(text)
    raise ConfigurationError(f"{origin}: the port is {text!r}; it must be a whole number from 0 to 65535")
