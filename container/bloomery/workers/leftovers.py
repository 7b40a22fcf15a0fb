"""What ranks leave on the machine: their sockets, and DeepSpeed's shared memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bloomery.processes.ports import ReservedPort
from bloomery.processes.shared_memory import SHARED_MEMORY, allreduce_buffer

# A unix socket's path holds 107 bytes (103 on macOS); ours end in "/control.<rank>" or "/sock.<rank>.pid".
_LONGEST_DIRECTORY = 85


def private_directory() -> Path:
    """A new directory that only this user can enter, with a path short enough for sockets."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _LONGEST_DIRECTORY - len("/bloomery-12345678"):
        parent = "/tmp"
    return Path(tempfile.mkdtemp(prefix="bloomery-", dir=parent))


def remove_allreduce_buffers(port: ReservedPort) -> None:
    """Delete the buffers of ranks that were killed before they could.

    While ``port`` is held the port belongs to our ranks alone, so a neighbour's buffers never match.
    """
    if not SHARED_MEMORY.is_dir():
        return
    for path in SHARED_MEMORY.glob(allreduce_buffer(port.host, port.number, "*")):
        path.unlink(missing_ok=True)
