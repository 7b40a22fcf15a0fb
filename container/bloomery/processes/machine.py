"""What this machine offers: cores, accelerators, memory; without torch."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bloomery.processes.control_group import ControlGroup


def cores() -> int:
    """Cores in our affinity mask, less where a control group's quota allows fewer."""
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = ControlGroup().processors()
    return available if quota is None else min(available, max(1, int(quota)))


def processor() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def devices(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """NVIDIA devices as CUDA_VISIBLE_DEVICES names them; empty on a CPU machine."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores everything from the first entry on that names no device; "-1" and "" hide all devices.
        invalid = (i for i, name in enumerate(names) if not name or name.startswith("-") or name == "NoDevFiles")
        return tuple(names[: next(invalid, len(names))])
    return tuple(str(index) for index in range(_listed_gpus(environ.get("PATH"))))


@functools.cache
def _listed_gpus(path: str | None) -> int:
    """How many the driver lists (asked once): it numbers those of a container from 0, whatever they are called."""
    command = shutil.which("nvidia-smi", path=path)
    if command is None:  # a small container may have the devices without the tool
        return sum(path.name[6:].isdecimal() for path in Path("/dev").glob("nvidia*"))
    try:
        listing = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0  # a driver that does not answer offers nothing
    return sum(line.startswith("GPU ") for line in listing.splitlines())


def tensor_parallel_maximum(environ: Mapping[str, str] = os.environ) -> int:
    """Devices where there are any, else cores: what ``tensor_parallel_degree=max`` means."""
    return len(devices(environ)) or cores()


def table_bytes(path: str | Path, name: str) -> int:
    """The figure called ``name`` of one of Linux's tables (/proc/meminfo, /proc/PID/status), in bytes; 0 where there
    is no such table or no such figure."""
    try:
        fields = (line.split() for line in Path(path).read_text().splitlines())
        return next((int(words[1]) * 1024 for words in fields if words[:1] == [f"{name}:"]), 0)
    except OSError:
        return 0


def memory_available() -> int:
    """Bytes that new processes can have: the kernel's estimate, less where a control group's limit allows fewer."""
    available, left = table_bytes("/proc/meminfo", "MemAvailable"), ControlGroup().memory_left()
    return available if left is None else min(available, left)
