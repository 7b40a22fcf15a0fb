"""The files that DeepSpeed's all-reduce makes in shared memory."""

from __future__ import annotations

import os
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def allreduce_buffer(host: str, port: int | str, rank: int | str) -> str:
    """The name of one rank's buffer (csrc/cpu/comm/shm.cpp): user, MASTER_ADDR, MASTER_PORT, rank; "*": any rank's."""
    return f"deepspeed_allreduce_buffer_{os.getuid()}_{host}_{port}_{rank}"
