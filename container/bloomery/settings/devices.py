"""How many devices this machine offers, found without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping


def visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """The CUDA devices that a rank could be given, as CUDA_VISIBLE_DEVICES would name them."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return _until_invalid([part.strip() for part in chosen.split(",")])
    command = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if command is None:
        return []
    try:
        listing = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that does not answer offers nothing
    count = sum(line.startswith("GPU ") for line in listing.splitlines())
    return [str(index) for index in range(count)]


def _until_invalid(parts: list[str]) -> list[str]:
    """CUDA stops at the first entry that names no device; "" and "-1" are the usual ways to say "none"."""
    for index, part in enumerate(parts):
        if not part or part.startswith("-"):
            return parts[:index]
    return parts


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count(environ: Mapping[str, str]) -> int:
    """GPUs where there are any, else cores: what ``tensor_parallel_degree=max`` means."""
    return len(visible_gpus(environ)) or cores()
