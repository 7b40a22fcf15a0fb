"""What a fetch and a process that reads for it tell each other: one packet each, JSON and never a pickle.

Over one socket, in this order: ``Hello`` once; then for each request ``Get``, answered by ``Head``; any number of
``Read`` (``Data``) and ``Write`` (``Came``, until all has come); ``Leave``. Each answer may be ``Failed``, which ends
the request.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PACKET_BYTES = 128 << 10  # what a socket takes by default is 208 KiB
READ_BYTES = 16 << 10


@dataclass(frozen=True)
class Hello:
    """How connections are made: the fields of ``wire.transport.Transport``."""

    connect_timeout: float
    stall_timeout: float
    ca_bundle: str | None
    proxies: Mapping[str, str]


@dataclass(frozen=True)
class Get:
    """Ask for ``url``. ``what`` begins every error."""

    url: str
    headers: Mapping[str, str]
    what: str


@dataclass(frozen=True)
class Head:
    """As ``wire.answer.Answer`` has it."""

    status: int
    reason: str
    headers: Mapping[str, str]
    length: int | None


@dataclass(frozen=True)
class Read:
    """At most ``limit`` bytes of the body, READ_BYTES or less."""

    limit: int


@dataclass(frozen=True)
class Data:
    """``text``: the bytes, each as the character of its number; empty at the end."""

    text: str


@dataclass(frozen=True)
class Write:
    """Put the next ``length`` bytes of the body into the file ``path`` from ``position``. ``crc``: the CRC64NVME of
    what went before, None when nobody wants one.
    """

    path: str
    position: int
    length: int
    crc: int | None


@dataclass(frozen=True)
class Came:
    """``count`` more bytes are in the file; ``crc`` with them."""

    count: int
    crc: int | None


@dataclass(frozen=True)
class Leave:
    """Nobody wants more of this answer."""


@dataclass(frozen=True)
class Failed:
    """``may_pass``: another attempt may help. ``number``: the errno of what happened to the file ``path``, 0 when it
    was something else.
    """

    message: str
    may_pass: bool = False
    number: int = 0
    path: str = ""


Message = Hello | Get | Head | Read | Data | Write | Came | Leave | Failed
_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (Hello, Get, Head, Read, Data, Write, Came, Leave, Failed)
}


def send(channel: socket.socket, message: Message) -> None:
    """Raises OSError when nobody is at the other end, or the message is larger than a packet."""
    channel.sendall(json.dumps([type(message).__name__, asdict(message)]).encode())


def receive(channel: socket.socket) -> Message | None:
    """The next message, None when the other end has gone. Raises OSError."""
    try:
        packet = channel.recv(PACKET_BYTES)
    except ConnectionError:
        return None
    if not packet:
        return None
    kind, fields = json.loads(packet)
    return _KINDS[kind](**fields)
