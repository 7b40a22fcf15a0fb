"""What bad input must leave as it was: the server, its ranks, their open files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psutil
from tests.support.server import Server

_SLACK = 4  # the server connects to the control sockets of its ranks when it first has to


def ranks(server: Server) -> list[int]:
    """The process ids of the server's ranks."""
    return sorted(child.pid for child in psutil.Process(server.process.pid).children())


def open_files(server: Server) -> int:
    """Open file descriptors of the server and of its ranks."""
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    return sum(process.num_fds() for process in processes)


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """Fails unless the server comes out of the block with the same ranks, as many open files, and good health."""
    assert server.ping().status == 200
    before, files = ranks(server), open_files(server)
    yield
    assert ranks(server) == before
    assert server.ping().status == 200
    deadline = time.monotonic() + 15
    while (now := open_files(server)) > files + _SLACK:  # the last connection's end may still be on its way
        assert time.monotonic() < deadline, f"{files} open files before, {now} after"
        time.sleep(0.05)
