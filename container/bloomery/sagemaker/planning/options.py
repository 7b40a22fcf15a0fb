"""What fits on which instance type with which degree of tensor parallelism."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.instances import INSTANCE_TYPES, InstanceType
from bloomery.sagemaker.planning.facts import CheckpointFacts
from bloomery.sagemaker.planning.form import Form
from bloomery.sagemaker.planning.load_time import LoadTime, Timeouts, Volume, load_time, timeouts, volume
from bloomery.sagemaker.planning.memory import LARGEST, MIB, USABLE, RankMemory, largest, rank_memory
from bloomery.sagemaker.planning.shape import ModelShape
from bloomery.sagemaker.planning.weights import check_degree, fitting_degrees, rank_weights


@dataclass(frozen=True)
class Work:
    """Sequences at once, and the tokens of each, prompt and answer together."""

    batch: int
    length: int


@dataclass(frozen=True)
class Option:
    """One instance type with one degree. Bytes are those of the fullest rank, ``usable`` those of its accelerator.

    ``copies``: groups of ranks that the machine's accelerators make. ``largest_batch``: at the wanted length;
    ``largest_length``: at the wanted batch; 0 when not even 1 fits. ``price``: USD per hour, if it was given.
    """

    instance_type: str
    accelerators: int
    accelerator: str
    degree: int
    copies: int
    memory: RankMemory
    usable: int
    largest_batch: int
    largest_length: int
    load: LoadTime
    timeouts: Timeouts
    volume: Volume
    price: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the wanted work has room."""
        return self.memory.total <= self.usable

    @property
    def free(self) -> int:
        """Bytes left on the fullest rank's accelerator; negative: missing."""
        return self.usable - self.memory.total


class OptionMaker:
    """Makes options of one model; what a degree means for its weights is computed once."""

    def __init__(self, facts: CheckpointFacts, shape: ModelShape, form: Form, work: Work) -> None:
        self._facts, self._shape, self._form, self._work = facts, shape, form, work
        self._stored = sum(tensor.stored_bytes for tensor in facts.tensors)
        self._weights: dict[int, int] = {}

    def options(self, name: str, degree: int | None, price: float | None) -> list[Option]:
        """With each degree that ``name`` and the model allow, or with the one that is given. Raises ConfigurationError
        and UnsupportedModelError."""
        machine = machine_of(name)
        if degree is not None:
            check_degree(self._facts, self._form, degree)
            degrees = [degree] if degree <= machine.gpus else []
        else:
            degrees = fitting_degrees(self._facts, self._form, machine.gpus)
        return [self._option(name, machine, each, price) for each in degrees]

    def _option(self, name: str, machine: InstanceType, degree: int, price: float | None) -> Option:
        weights, shape, work = self._heaviest(degree), self._shape, self._work
        usable = int(machine.accelerator_memory * MIB * USABLE)

        def memory(batch: int, length: int) -> RankMemory:
            return rank_memory(shape, self._form, weights, batch, length, degree)

        load = load_time(machine, self._facts.fetched_bytes, self._facts.weight_bytes, self._read_by_rank(weights))
        return Option(
            instance_type=name,
            accelerators=machine.gpus,
            accelerator=machine.accelerator,
            degree=degree,
            copies=machine.gpus // degree,
            memory=memory(work.batch, work.length),
            usable=usable,
            largest_batch=largest(lambda batch: memory(batch, work.length).total <= usable),
            largest_length=largest(
                lambda length: memory(work.batch, length).total <= usable, shape.positions or LARGEST
            ),
            load=load,
            timeouts=timeouts(load),
            volume=volume(machine, self._facts.fetched_bytes),
            price=price,
        )

    def _heaviest(self, degree: int) -> int:
        if degree not in self._weights:
            ranks = rank_weights(self._facts, self._form, degree)
            self._weights[degree] = max(rank.total for rank in ranks)
        return self._weights[degree]

    def _read_by_rank(self, weights: int) -> int:
        """Bytes of the files, which may be in a wider format than the memory."""
        held = self._heaviest(1)
        return min(self._stored, weights * self._stored // held) if held else 0


def machine_of(name: str) -> InstanceType:
    """Of an instance type that GPU programs run on. Raises ConfigurationError."""
    machine = INSTANCE_TYPES.get(name)
    if machine is None:
        known = sorted({each.split(".")[1] for each, has in INSTANCE_TYPES.items() if has.gpus})
        raise ConfigurationError(
            f"instance type {name!r} is not in the table; it has those of {', '.join(known)}, such as ml.g5.12xlarge"
        )
    if not machine.gpus:
        has = f"{machine.accelerators} {machine.accelerator}" if machine.accelerators else "no accelerator"
        raise ConfigurationError(
            f"instance type {name} has {has}: a plan is made for GPUs, on which DeepSpeed and Accelerate run; choose "
            "one such as ml.g5.12xlarge"
        )
    return machine


def gpu_types() -> list[str]:
    """All that have GPUs."""
    return [name for name, machine in INSTANCE_TYPES.items() if machine.gpus]


def ordered(options: Iterable[Option]) -> list[Option]:
    """What fits first: the cheapest machine, then those without a price, the smallest first; of its degrees the one
    that makes the most copies, and among those the one that leaves the fewest GPUs idle. Then what does not fit, the
    nearest first."""

    def key(option: Option) -> tuple[bool, float, int, int, str, int, int]:
        if not option.fits:
            return True, -option.free, 0, 0, option.instance_type, 0, 0
        price = math.inf if option.price is None else option.price
        size, vcpus = option.accelerators * option.usable, INSTANCE_TYPES[option.instance_type].vcpus
        return False, price, size, vcpus, option.instance_type, -option.copies, -option.degree

    return sorted(options, key=key)
