"""On how many machines copies of inference components find room: first fit, the largest first.

Machines only count here. All containers run on this one, whatever it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.instances import INSTANCE_TYPES, InstanceType


@dataclass(frozen=True)
class Requirements:
    """What one copy takes of a machine; ``memory`` in MiB."""

    accelerators: float
    cpus: float
    memory: int

    @classmethod
    def of(cls, given: dict[str, Any]) -> Requirements:
        """From ComputeResourceRequirements."""
        return cls(
            accelerators=float(given.get("NumberOfAcceleratorDevicesRequired", 0)),
            cpus=float(given.get("NumberOfCpuCoresRequired", 0)),
            memory=int(given["MinMemoryRequiredInMb"]),
        )


@dataclass
class _Free:
    accelerators: float
    cpus: float
    memory: int

    def take(self, wanted: Requirements) -> bool:
        """Whether there was room, which is taken then."""
        if wanted.accelerators > self.accelerators or wanted.cpus > self.cpus or wanted.memory > self.memory:
            return False
        self.accelerators -= wanted.accelerators
        self.cpus -= wanted.cpus
        self.memory -= wanted.memory
        return True


def lacking(instance_type: str, wanted: Requirements) -> str | None:
    """What even an empty machine of that type has too little of, in words; None when it has enough."""
    has = INSTANCE_TYPES.get(instance_type)
    if has is None:
        return None
    compared = (
        ("accelerator devices", wanted.accelerators, has.accelerators),
        ("CPU cores", wanted.cpus, has.vcpus),
        ("MB of memory", wanted.memory, has.memory),
    )
    short = [f"{needs:g} {what} (it has {there:g})" for what, needs, there in compared if needs > there]
    return "; ".join(short) or None


def machines(instance_type: str, copies: Iterable[tuple[Requirements, int]]) -> int:
    """The machines that it takes to hold so many copies of each. Each copy must fit an empty one (``lacking``)."""
    has = INSTANCE_TYPES.get(instance_type)
    each = [wanted for wanted, count in copies for _ in range(count)]
    if has is None:
        return 1 if each else 0
    used: list[_Free] = []
    for wanted in sorted(each, key=lambda one: (one.accelerators, one.memory, one.cpus), reverse=True):
        if not any(free.take(wanted) for free in used):
            used.append(_empty(has))
            used[-1].take(wanted)
    return len(used)


def _empty(has: InstanceType) -> _Free:
    return _Free(has.accelerators, has.vcpus, has.memory)
