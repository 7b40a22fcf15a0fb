"""How files are fetched; read from the environment, because ranks fetch too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from bloomery.checkpoints.transfer import PART_BYTES, POLICY
from bloomery.errors import ConfigurationError
from bloomery.processes.machine import cores

CONNECTIONS = "BLOOMERY_FETCH_CONNECTIONS"
PART_SIZE = "BLOOMERY_FETCH_PART_MIB"
VERIFY = "BLOOMERY_FETCH_VERIFY"
PROCESSES = "BLOOMERY_FETCH_PROCESSES"
RESUME = "BLOOMERY_FETCH_RESUME"
PATIENCE = "BLOOMERY_FETCH_PATIENCE"
_MOST_CONNECTIONS, _MOST_PROCESSES = 256, 64


@dataclass(frozen=True)
class FetchOptions:
    """``connections``: how many ranges are read at once. ``part_bytes``: the longest range of one request.
    ``processes``: how many read what comes over https; with 1 this one does. ``verify``: compare checksums. ``resume``:
    go on from what a fetch that was cut short has left; without it nothing is left. ``patience``: seconds without
    progress, however many attempts that are, after which a range is given up.
    """

    connections: int = 16
    part_bytes: int = PART_BYTES
    processes: int = 1
    verify: bool = True
    resume: bool = True
    patience: float = POLICY.patience

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> FetchOptions:
        """As the environment says; raises ConfigurationError."""
        # S3 gives one connection 50 to 100 MB/s, and large machines come with fast networks.
        usual = min(64, max(cls.connections, cores()))
        return cls(
            _number(environment, CONNECTIONS, usual, _MOST_CONNECTIONS),
            _number(environment, PART_SIZE, cls.part_bytes >> 20, 1024) << 20,
            _number(environment, PROCESSES, min(16, cores()), _MOST_PROCESSES),
            _switch(environment, VERIFY),
            _switch(environment, RESUME),
            _number(environment, PATIENCE, int(cls.patience), 3600),
        )


def _number(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ConfigurationError(f"{name}={text!r} is no number from 1 to {most}")
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower() or "true"
    if text not in ("true", "false"):
        raise ConfigurationError(f"{name}={text!r} is neither true nor false")
    return text == "true"
