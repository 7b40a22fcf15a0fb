"""Who gets which accelerators and how many threads: one allocator for all groups of all models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bloomery.errors import ConfigurationError
from bloomery.processes import machine


@dataclass(frozen=True)
class Allocation:
    """What one group received. ``devices`` is empty on a CPU machine."""

    devices: tuple[str, ...]
    threads: int  # per rank


class Allocator:
    """Ranks are announced when models are configured, so that the first group already leaves cores to the last."""

    def __init__(self, devices: Sequence[str] | None = None, cores: int | None = None) -> None:
        found = machine.devices() if devices is None else devices
        self._users = dict.fromkeys(found, 0)
        self._cores = cores or machine.cores()
        self._ranks = 0

    def announce(self, ranks: int) -> None:
        """So many more ranks will run (fewer, if negative)."""
        self._ranks += ranks

    def take(self, devices: int, model: str) -> Allocation:
        """The least used ``devices`` of the machine, and a fair share of its cores."""
        threads = max(1, self._cores // max(1, self._ranks))
        if not self._users:
            return Allocation((), threads)
        if devices > len(self._users):
            raise ConfigurationError(
                f"model {model!r} wants tensor_parallel_degree={devices}, and this machine shows "
                f"{len(self._users)} device(s) ({', '.join(self._users)}); lower the degree or show more devices "
                "through CUDA_VISIBLE_DEVICES"
            )
        chosen = tuple(sorted(self._users, key=lambda name: self._users[name])[:devices])
        for name in chosen:
            self._users[name] += 1
        return Allocation(chosen, threads)

    def give_back(self, allocation: Allocation) -> None:
        """The group that had it is gone."""
        for name in allocation.devices:
            self._users[name] -= 1
