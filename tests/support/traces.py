"""What a server could leave on the machine: processes, files in shared memory, files in its temporary directory."""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = "BLOOMERY_TEST_MARK"
_SHARED_MEMORY = Path("/dev/shm")
_SETTLED = 5.0  # seconds


@dataclass
class Traces:
    """Start a server with ``env``; every process that comes of it inherits the mark, whoever its parent is later."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _shared: frozenset[str] = field(default_factory=lambda: _shared_memory())

    @property
    def env(self) -> dict[str, str]:
        return {_VARIABLE: self.mark}

    def processes(self) -> dict[int, str]:
        """Command lines of the processes that live and carry the mark, by their ids."""
        wanted = f"{_VARIABLE}={self.mark}".encode()
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    found[int(directory.name)] = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended meanwhile, or is somebody else's
        return found

    def shared_memory(self) -> set[str]:
        """Files in /dev/shm that were not there before and that no living process has: other tests run meanwhile."""
        deadline = time.monotonic() + _SETTLED
        while (found := _shared_memory() - self._shared - _mapped()) and time.monotonic() < deadline:
            time.sleep(0.1)  # somebody else's may be about to be mapped, or to go
        return set(found)

    def gone_within(self, seconds: float) -> bool:
        """Whether all of its processes end in time."""
        deadline = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def _mapped() -> set[str]:
    """Names of the files in /dev/shm that some process has mapped or open."""
    found: set[str] = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            found |= set(re.findall(rf"{_SHARED_MEMORY}/(\S+)", (directory / "maps").read_text()))
            found |= {Path(os.readlink(link)).name for link in (directory / "fd").iterdir()}
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def _shared_memory() -> frozenset[str]:
    names = (path.name for path in _SHARED_MEMORY.iterdir()) if _SHARED_MEMORY.is_dir() else ()
    return frozenset(name for name in names if name.startswith(("deepspeed_", "torch_", "sem.", "psm_", "bloomery")))
