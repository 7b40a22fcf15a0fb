"""Which accelerators each worker group of a model gets: ``load_on_devices``, and workers per device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bloomery.errors import ConfigurationError
from bloomery.processes import machine
from bloomery.settings import table
from bloomery.settings.layers import Found, Layer
from bloomery.settings.model import DeviceSet

Kind = Literal["gpu", "cpu"]
KINDS: tuple[Kind, ...] = ("gpu", "cpu")
# A slip of the finger (minWorkers=1000) would start processes until the machine stands still, this server with it.
_MOST_PROCESSES, _MOST_PER_CORE = 128, 8
_DEVICE = re.compile(r"(?:gpu)?(\d+)")


@dataclass(frozen=True)
class Workers:
    """Groups per device set: started, and at most."""

    fewest: int
    most: int


def kind_of(devices: DeviceSet) -> Kind:
    """Of a set of devices; the empty one is the CPU."""
    return "gpu" if devices else "cpu"


def selected(stated: Found | None, visible: DeviceSet) -> tuple[DeviceSet, bool]:
    """The GPUs that a model may use, as CUDA_VISIBLE_DEVICES names them, and whether it runs on the CPU as well.

    ``stated`` is ``*`` (all GPUs, or the CPU where there is none), or names with semicolons between them: ``gpu0`` or
    ``0`` counts among the ``visible`` ones, ``cpu`` or ``-1`` is the CPU.
    """
    words = [word.strip().lower() for word in re.split(r"[;,]", stated.text)] if stated else ["*"]
    if words == ["*"]:
        return visible, not visible
    assert stated is not None
    gpus: list[str] = []
    for word in words:
        if word in ("cpu", "-1"):
            continue
        match = _DEVICE.fullmatch(word)
        if match is None:
            raise ConfigurationError(
                f"{stated.origin}: load_on_devices={stated.text}: {word!r} is no device; write *, cpu, or GPUs such as "
                "gpu0;gpu1"
            )
        if int(match[1]) >= len(visible):
            there = f"{len(visible)} GPU(s): {', '.join(visible)}" if visible else "no GPU"
            raise ConfigurationError(
                f"{stated.origin}: load_on_devices={stated.text}: {word} is not there; this machine shows {there}"
            )
        if visible[int(match[1])] not in gpus:
            gpus.append(visible[int(match[1])])
    return tuple(gpus), any(word in ("cpu", "-1") for word in words)


def device_sets(gpus: DeviceSet, on_cpu: bool, degree: int, model: str) -> list[DeviceSet]:
    """One set of ``degree`` GPUs after the other, and the empty set for the CPU; GPUs left over serve nothing."""
    sets = [gpus[start : start + degree] for start in range(0, len(gpus) - degree + 1, degree)]
    if gpus and not sets:
        raise ConfigurationError(
            f"model {model!r} wants tensor_parallel_degree={degree}, and may use {len(gpus)} device(s) "
            f"({', '.join(gpus)}); lower the degree, or show more devices through CUDA_VISIBLE_DEVICES or "
            "load_on_devices"
        )
    return [*sets, *([()] if on_cpu else [])]


def workers(found: Layer, kind: Kind) -> Workers:
    """What ``gpu.minWorkers`` and its kin say for one device of ``kind``; by default one group, as many at most."""
    low, high = (found.get(f"{kind}.{name}") for name in table.WORKERS)
    fewest: int | None = table.parse(table.of("minWorkers"), low) if low else None
    most: int | None = table.parse(table.of("maxWorkers"), high) if high else None
    if low and high and fewest and most and fewest > most:
        raise ConfigurationError(
            f"minWorkers={fewest} ({low.origin}) is above maxWorkers={most} ({high.origin}); "
            "raise one or lower the other"
        )
    return Workers(fewest or 1, most or fewest or 1)


def refuse_too_many(groups: int, ranks: int) -> None:
    """ConfigurationError where ``groups`` of ``ranks`` processes each are more than any use of this machine."""
    cores = machine.cores()
    most = max(_MOST_PROCESSES, _MOST_PER_CORE * cores)
    if groups * ranks > most:
        raise ConfigurationError(
            f"minWorkers={groups} and {ranks} process(es) per group are {groups * ranks} processes for one model; "
            f"a machine of {cores} cores takes {most} at most; lower minWorkers or tensor_parallel_degree"
        )


def placements(sets: list[DeviceSet], workers: Mapping[Kind, Workers]) -> tuple[DeviceSet, ...]:
    """A device set for each group that is started."""
    return tuple(each for each in sets for _ in range(workers[kind_of(each)].fewest))
