"""What else this machine did meanwhile: the share of others in its processors, and whether the load generator itself
was the narrow place."""

from __future__ import annotations

import ipaddress
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bloomery.bench.measure import ProcessorTime, descendants, share_of_others

_LISTENING = "0A"


@dataclass(frozen=True)
class Share:
    """Parts, 0 to 1. ``others``: of all cores, taken by processes that are neither this client nor the server.
    ``client``: of one core, taken by this client; near 1 it measures itself. ``server_here``: whether the server runs
    on this machine, so that its time is known; else it counts for nothing."""

    others: float
    client: float
    server_here: bool


class Watch:
    """Between its begin and ``share()``. ``port`` is that of a server on this machine, if it is one."""

    def __init__(self, port: int | None) -> None:
        found = listeners(port) if port else []
        self._server_here = bool(found)
        self._pids = {os.getpid(), *found, *(child for pid in found for child in descendants(pid))}
        self._before = ProcessorTime.now(self._pids)
        self._client, self._began = time.process_time(), time.monotonic()

    @classmethod
    def of(cls, host: str, port: int | None) -> Self:
        """Begin now; ``host`` as in the URL."""
        return cls(port if _is_here(host) else None)

    def share(self) -> Share:
        """Until now."""
        wall = max(time.monotonic() - self._began, 1e-9)
        client = (time.process_time() - self._client) / wall
        others = share_of_others(self._before, ProcessorTime.now(self._pids))
        return Share(round(others, 4), round(client, 4), self._server_here)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listeners(port: int) -> list[int]:
    """Ids of the processes that listen on this TCP port, as far as we may see them."""
    wanted = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        wanted |= {
            f"socket:[{row[9]}]" for row in rows if row[3] == _LISTENING and int(row[1].split(":")[1], 16) == port
        }
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if wanted and _holds(process, wanted)]


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        for descriptor in (process / "fd").iterdir():
            try:
                if os.readlink(descriptor) in sockets:
                    return True
            except OSError:  # closed meanwhile
                continue
    except OSError:  # ended, or somebody else's
        pass
    return False
