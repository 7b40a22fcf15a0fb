"""Runs a script in two rank processes that can meet through torch.distributed; each prints one JSON line at its end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# torch 2.13: one process in eight that still refers to a gloo group aborts when the interpreter tears it down.
_LEAVE = "\nimport os, sys; sys.stdout.flush(); sys.stderr.flush(); os._exit(0)\n"
CONTAINER = Path(__file__).parents[2] / "container"


def run_pair(
    script: str, env: Mapping[str, str] | None = None, world_size: int = 2, timeout: float = 120.0
) -> list[dict[str, Any]]:
    """What each rank printed; raises with a rank's output when it failed."""
    with socket.socket() as reserved:
        # Bound but not listening: nobody else is given the port, and torch may still listen on it.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = str(reserved.getsockname()[1])
        ranks = [_start(script, rank, world_size, port, env or {}) for rank in range(world_size)]
        try:
            outputs = [rank.communicate(timeout=timeout)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    for number, (rank, output) in enumerate(zip(ranks, outputs, strict=True)):
        assert rank.returncode == 0, f"rank {number} exited with {rank.returncode}:\n{output}"
    return [json.loads(output.strip().splitlines()[-1]) for output in outputs]


def _start(script: str, rank: int, world_size: int, port: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(CONTAINER),
    }
    return subprocess.Popen(
        [sys.executable, "-c", script + _LEAVE],
        env=os.environ | variables | dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
