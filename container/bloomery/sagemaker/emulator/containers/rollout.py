"""How an endpoint gets from one configuration to the next: the steps that a DeploymentConfig asks for, and back again
when one of them fails."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.aws.alarms import Watch
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Fleet

logger = logging.getLogger(__name__)
Counts = Mapping[str, int]  # instances by variant
Progress = Callable[[str, Counts], None]  # the variants' status, and the successor's instances that are there


class RollbackFailure(DeploymentFailure):
    """The old instances that had gone already could not be started again: both generations serve."""


@dataclass(frozen=True)
class Step:
    """Have ``instances`` of the successor, let it have ``share`` of the requests, watch the alarms for ``wait``
    seconds, and keep ``remaining`` old instances; None: all."""

    instances: Counts
    share: float
    wait: float
    remaining: Counts | None = None


@dataclass(frozen=True)
class Plan:
    """The way from ``old`` to ``new``. Times in seconds."""

    old: EndpointSpec
    new: EndpointSpec
    steps: tuple[Step, ...]
    termination_wait: float = 0.0
    limit: float | None = None  # for everything
    rollback: float = 1.0  # the share of the old instances that come back at a time

    @classmethod
    def of(cls, old: EndpointSpec, new: EndpointSpec, config: Mapping[str, Any] | None) -> Plan:
        """As ``config``, a DeploymentConfig, says; without one everything moves at once."""
        config = config or {}
        if rolling := config.get("RollingUpdatePolicy"):
            back = rolling.get("RollbackMaximumBatchSize")
            return cls(
                old,
                new,
                tuple(_rolling(old, new, rolling)),
                limit=rolling.get("MaximumExecutionTimeoutInSeconds"),
                rollback=min(1.0, _share(back, old)) if back else 1.0,
            )
        policy = config.get("BlueGreenUpdatePolicy") or {}
        return cls(
            old,
            new,
            tuple(_blue_green(new, policy.get("TrafficRoutingConfiguration") or {})),
            termination_wait=policy.get("TerminationWaitInSeconds", 0),
            limit=policy.get("MaximumExecutionTimeoutInSeconds"),
        )


def counts(spec: EndpointSpec) -> dict[str, int]:
    """The instances that it asks for."""
    return {variant.name: variant.instance_count for variant in spec.variants}


def _blue_green(new: EndpointSpec, routing: Mapping[str, Any]) -> Iterator[Step]:
    everything, wait = counts(new), float(routing.get("WaitIntervalInSeconds", 0))
    if routing.get("Type") == "CANARY":
        yield Step(everything, _share(routing["CanarySize"], new), wait)
    elif routing.get("Type") == "LINEAR":
        size = _share(routing["LinearStepSize"], new)
        for number in range(1, math.ceil(1 / size)):
            yield Step(everything, number * size, wait)
    yield Step(everything, 1.0, wait)


def _rolling(old: EndpointSpec, new: EndpointSpec, policy: Mapping[str, Any]) -> Iterator[Step]:
    batches = math.ceil(1 / _share(policy["MaximumBatchSize"], new))
    for number in range(1, batches + 1):
        part = number / batches
        yield Step(
            {name: math.ceil(count * part) for name, count in counts(new).items()},
            part,
            float(policy["WaitIntervalInSeconds"]),
            {name: count - math.ceil(count * part) for name, count in counts(old).items()},
        )


def _share(size: Mapping[str, Any], spec: EndpointSpec) -> float:
    """A CapacitySize as a share of the endpoint; of one with several variants, of the largest."""
    if size["Type"] == "CAPACITY_PERCENT":
        return float(min(100, size["Value"]) / 100)
    return float(min(1.0, size["Value"] / max(1, *counts(spec).values())))


async def roll_out(plan: Plan, fleet: Fleet, alarms: Watch, phase: Callable[[str], None], progress: Progress) -> None:
    """Return when the new generation serves alone. Raises DeploymentFailure; the old one serves alone then, unless it
    is a RollbackFailure."""
    try:
        try:
            async with asyncio.timeout(plan.limit):
                await _forward(plan, fleet, alarms, phase, progress)
        except TimeoutError:
            raise DeploymentFailure(words.UPDATE_TIME.format(seconds=plan.limit)) from None
    except Exception as error:
        if not isinstance(error, DeploymentFailure):
            logger.exception("the update of %s failed: a fault of the emulator", plan.new.key)
            error = DeploymentFailure(words.INTERNAL.format())
        phase(f"rolling back: {error}")
        progress("Deleting", {})
        await _back(plan, fleet, error)
        raise error from None
    phase("ending the old instances")
    await fleet.promote(plan.new.key)


async def _forward(plan: Plan, fleet: Fleet, alarms: Watch, phase: Callable[[str], None], progress: Progress) -> None:
    name = plan.new.key
    await alarms.check()  # one that is on already would end the update as soon as it had begun
    there: Counts = {}
    for step in plan.steps:
        if step.instances != there:
            progress("Creating", there)
            await fleet.stage(plan.new, step.instances, phase)
            there = step.instances
        fleet.shift(name, step.share)
        phase(f"{step.share:.0%} of the requests go to {plan.new.config_name}")
        progress("Baking" if step.wait else "ActivatingTraffic", there)
        await alarms.watch(step.wait)
        if step.remaining is not None:
            await _scale(fleet, name, step.remaining)
    if plan.termination_wait:
        phase("waiting before the old instances are ended")
        await alarms.watch(plan.termination_wait)


async def _back(plan: Plan, fleet: Fleet, cause: DeploymentFailure) -> None:
    """The old instances that went come back, batch by batch; then the successor goes."""
    name, gone = plan.old.key, any(step.remaining is not None for step in plan.steps)
    try:
        for number in range(1, math.ceil(1 / plan.rollback) + 1 if gone else 1):
            part = min(1.0, number * plan.rollback)
            await _restore(fleet, name, {each: math.ceil(count * part) for each, count in counts(plan.old).items()})
    except DeploymentFailure as failure:
        raise RollbackFailure(words.ROLLBACK_FAILED.format(cause=cause, reason=failure)) from failure
    fleet.shift(name, 0.0)
    await fleet.withdraw(name)


async def _restore(fleet: Fleet, name: str, least: Counts) -> None:
    there = fleet.counts(name)
    await _scale(fleet, name, {each: count for each, count in least.items() if count > there[each]})


async def _scale(fleet: Fleet, name: str, wanted: Counts) -> None:
    """All variants at once; the first failure is raised when each is done."""
    scaling = (fleet.scale(name, each, count) for each, count in wanted.items())
    for result in await asyncio.gather(*scaling, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
