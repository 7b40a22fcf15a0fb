"""What this process's control group allows, and how often it ran out: versions 1 and 2 of the kernel's interface.

In a container the group is seen as the root of what is mounted, or its path is, from outside: whichever exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60  # version 1 writes the largest page-aligned number for "no limit"


@dataclass(frozen=True)
class _Names:
    """The files of one version."""

    limit: str
    used: str
    cache: str  # what of the used memory the kernel gives back by itself, a line of memory.stat
    kills: str


_NAMES = {
    1: _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"),
    2: _Names("memory.max", "memory.current", "inactive_file", "memory.events"),
}


@dataclass(frozen=True)
class ControlGroup:
    """Where the groups are mounted, and this process's entry in /proc."""

    mount: Path = Path("/sys/fs/cgroup")
    entry: Path = Path("/proc/self/cgroup")

    def memory_limit(self) -> int | None:
        """Bytes, the least of this group's and those above it; None where there is no limit."""
        return min((limit for _, limit in self._limits()), default=None)

    def memory_left(self) -> int | None:
        """Bytes that may still be taken below the limits; None where there is none."""
        left = (limit - self._used(group) for group, limit in self._limits())
        return max(0, least) if (least := min(left, default=None)) is not None else None

    def out_of_memory_kills(self) -> int:
        """How many processes of this group the kernel has killed for want of memory, here or on the whole machine."""
        version, groups = self._groups("memory")
        return _line(groups[0] / _NAMES[version].kills, "oom_kill") if groups else 0

    def processors(self) -> float | None:
        """How many processors' time the group may use; None where there is no quota."""
        version, groups = self._groups("cpu")
        quotas = (_quota(group, version) for group in groups)
        return min((quota for quota in quotas if quota), default=None)

    def _limits(self) -> Iterator[tuple[Path, int]]:
        version, groups = self._groups("memory")
        for group in groups:
            limit = _number(group / _NAMES[version].limit)
            if limit is not None and limit < _UNLIMITED:
                yield group, limit

    def _used(self, group: Path) -> int:
        names = _NAMES[self._groups("memory")[0]]
        return (_number(group / names.used) or 0) - _line(group / "memory.stat", names.cache)

    def _groups(self, controller: str) -> tuple[int, list[Path]]:
        """The version, and the directories of this process's group and of those above it, the nearest first."""
        try:
            lines = [line.split(":", 2) for line in self.entry.read_text().splitlines()]
        except OSError:
            return 2, []
        paths = {name: path for _, names, path in lines for name in names.split(",")}
        root = self.mount / controller
        version = 1 if controller in paths and root.is_dir() else 2
        if version == 2:
            root, controller = self.mount, ""
        inside = root / paths.get(controller, "/").lstrip("/")
        nearest = inside if inside.is_dir() else root
        chain = [nearest, *nearest.parents]
        return version, [group for group in chain if group.is_relative_to(root)]


def _quota(group: Path, version: int) -> float | None:
    try:
        if version == 2:
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # none of that version, or the quota is "max"
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _line(path: Path, name: str) -> int:
    """The figure of a line ``name figure``; 0 where there is no such line."""
    try:
        fields = (line.split() for line in path.read_text().splitlines())
        return next((int(words[1]) for words in fields if words[:1] == [name]), 0)
    except OSError:
        return 0
