"""The settings of the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from bloomery.errors import ConfigurationError
from bloomery.settings.properties import Found


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens and what it accepts. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_request_size: int = 64 * 2**20
    shutdown_grace: float = 25.0  # SageMaker sends SIGKILL 30 s after SIGTERM

    @property
    def address(self) -> str:
        """As DJLServing writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def read_port(text: str, origin: str) -> int:
    """A TCP port; 0 lets the system choose."""
    if text.strip().isdecimal() and int(text) < 65536:
        return int(text)
    raise ConfigurationError(f"{origin}: the port is {text!r}; it must be a whole number from 0 to 65535")


def read_address(found: Found) -> tuple[str, int]:
    """Host and port of ``http://HOST:PORT``."""
    try:
        parts = urlsplit(found.text if "://" in found.text else f"http://{found.text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme == "https":
        raise ConfigurationError(
            f"{found.origin}: inference_address={found.text}: this server speaks plain HTTP; put a TLS proxy before "
            "it and write http://HOST:PORT"
        )
    if parts.scheme != "http" or not host or parts.path not in ("", "/"):
        raise ConfigurationError(
            f"{found.origin}: inference_address={found.text!r} is not of the form http://HOST:PORT"
        )
    return host, 8080 if port is None else port
