"""Who gets which accelerators and how many threads: one allocator for all groups of all models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bloomery.processes import machine
from bloomery.settings.model import DeviceSet, ModelSettings


@dataclass(frozen=True)
class Allocation:
    """What one group received. ``devices`` is empty where it computes on the CPU."""

    devices: DeviceSet
    threads: int  # per rank
    place: tuple[str, str | None, int] | None = None  # the model, and which of its placements


class Allocator:
    """Ranks are announced when models are configured, so that the first group already leaves cores to the last."""

    def __init__(self, cores: int | None = None) -> None:
        self._groups: Counter[tuple[str, str | None, int]] = Counter()  # of one model, at each of its placements
        self._users: Counter[str] = Counter()  # groups of any model, on each device
        self._cores = cores or machine.cores()
        self._ranks = 0

    def announce(self, ranks: int) -> None:
        """So many more ranks will run (fewer, if negative)."""
        self._ranks += ranks

    def take(self, model: ModelSettings) -> Allocation:
        """The placement that fewest of the model's own groups have, then the least used devices; and a fair share of
        the machine's cores."""
        threads = max(1, self._cores // max(1, self._ranks))
        if not model.placements:
            return Allocation((), threads)

        def load(index: int) -> tuple[int, int]:
            devices = model.placements[index]
            return self._groups[model.name, model.version, index], max((self._users[x] for x in devices), default=0)

        index = min(range(len(model.placements)), key=load)
        place = (model.name, model.version, index)
        self._groups[place] += 1
        self._users.update(model.placements[index])
        return Allocation(model.placements[index], threads, place)

    def give_back(self, allocation: Allocation) -> None:
        """The group that had it is gone."""
        if allocation.place is not None:
            self._groups[allocation.place] -= 1
            self._users.subtract(allocation.devices)
