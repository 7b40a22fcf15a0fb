"""What ranks leave on the machine: their sockets, and DeepSpeed's shared memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bloomery.processes.ports import ReservedPort

# A unix socket's path holds 107 bytes (103 on macOS); ours end in "/control.<rank>" or "/sock.<rank>.pid".
_LONGEST_DIRECTORY = 85
SHARED_MEMORY = Path("/dev/shm")


def private_directory() -> Path:
    """A new directory that only this user can enter, with a path short enough for sockets."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _LONGEST_DIRECTORY - len("/bloomery-12345678"):
        parent = "/tmp"
    return Path(tempfile.mkdtemp(prefix="bloomery-", dir=parent))


def remove_allreduce_buffers(port: ReservedPort) -> None:
    """Delete the buffers of ranks that were killed before they could.

    Their name is DeepSpeed's (csrc/cpu/comm/shm.cpp): user, MASTER_ADDR, MASTER_PORT, rank. While ``port`` is held the
    port belongs to our ranks alone, so a neighbour's buffers never match.
    """
    if not SHARED_MEMORY.is_dir():
        return
    for path in SHARED_MEMORY.glob(f"deepspeed_allreduce_buffer_{os.getuid()}_{port.host}_{port.number}_*"):
        path.unlink(missing_ok=True)
