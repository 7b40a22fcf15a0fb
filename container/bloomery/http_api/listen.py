"""The server's address, bound before anything else is imported: clients that come early wait instead of failing."""

from __future__ import annotations

import errno
import socket

from bloomery.errors import AddressError

_BACKLOG = 1024


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the system choose one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise AddressError(f"the host {host!r} cannot be resolved: {error.strerror or error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            advice = f"port {port} on {host} is already in use; end what listens there or choose another with --port"
        elif error.errno == errno.EACCES:
            advice = f"this user may not listen on port {port}; choose one from 1024 on with --port"
        else:
            advice = f"cannot listen on {host} port {port}: {error.strerror}"
        raise AddressError(advice) from error
    return listener


def url(listener: socket.socket) -> str:
    """Where a client on this machine finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
