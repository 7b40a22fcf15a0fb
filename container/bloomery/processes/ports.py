"""A TCP port that nobody else can take while we hold it, although it is one of our ranks that will listen on it."""

from __future__ import annotations

import socket


class ReservedPort:
    """A bound socket that never listens.

    Both sides set SO_REUSEADDR, so rank 0's store (torch's TCPStore sets it) can still listen here, while the kernel
    hands the port to nobody who asks for a free one and refuses anybody who binds it without SO_REUSEADDR. Looking
    for a free port and closing it again leaves a gap in which another program takes it.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.host = host
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()
