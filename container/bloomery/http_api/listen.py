"""The server's addresses, bound before anything else is imported: clients that come early wait instead of failing."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import AddressError
from bloomery.settings.address import Address

_BACKLOG = 1024
_LIVENESS = 1.0  # seconds; whoever listens on a unix socket has accepted by then, or is too busy to be gone


@dataclass
class Listener:
    """A listening socket and the address that it is for."""

    address: Address
    socket: socket.socket
    _inode: tuple[int, int] | None = None  # of a unix socket's file: what lies there later may be another's

    @property
    def url(self) -> str:
        """Where a client on this machine finds it."""
        if self.address.scheme == "unix":
            return str(self.address)
        host, port = self.socket.getsockname()[:2]
        return str(Address(self.address.scheme, host, port))

    def close(self) -> None:
        """Stop listening; a unix socket's file goes with it."""
        self.socket.close()
        path = Path(self.address.path)
        if self._inode is not None and _inode(path) == self._inode:
            path.unlink(missing_ok=True)


def bind(address: Address) -> Listener:
    """A listener; port 0 lets the system choose one. AddressError says what stands in the way."""
    return _bind_unix(address) if address.scheme == "unix" else _bind_tcp(address)


def _bind_tcp(address: Address) -> Listener:
    host, port = address.host, address.port
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise AddressError(f"the host {host!r} cannot be resolved: {error.strerror or error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
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
    return Listener(address, listener)


def _bind_unix(address: Address) -> Listener:
    path = Path(address.path)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # whoever can connect can use and manage the server: that is its own user alone
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from error
    finally:
        os.umask(mask)
    return Listener(address, listener, _inode(path))


def _remove_stale(path: Path) -> None:
    """A server that was killed leaves its socket's file behind, and nobody can bind there any more."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return  # nothing there, or binding tells what is wrong
    if not is_socket:
        raise AddressError(f"unix:{path} cannot be listened on: a file that is no socket is there; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_LIVENESS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()
            return
        except OSError:
            pass
    raise AddressError(f"unix:{path} is already in use; end what listens there or choose another path")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
