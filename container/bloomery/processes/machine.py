"""How many cores and accelerators this process may use."""

from __future__ import annotations

import os
import re
from pathlib import Path


def cores() -> int:
    """Cores in our affinity mask, less where a control group's quota allows fewer."""
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        pass
    return available


def devices() -> tuple[str, ...]:
    """NVIDIA devices as CUDA_VISIBLE_DEVICES names them; empty on a CPU machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores everything from the first invalid entry on; "-1" and "" hide all devices.
        first_invalid = next((i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
        return tuple(names[:first_invalid])
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return tuple(str(number) for number in sorted(int(match[1]) for match in found if match))
