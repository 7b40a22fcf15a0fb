"""The emulator with a fleet that runs nothing, for tests of the control plane alone.

A model's environment says what becomes of its endpoints: SECONDS to deploy, FAILURE (the FailureReason), FAULT (an
error that no fleet should raise), STOPPING (seconds to end). HOLD: deploy, or scale, until the file of that name is
gone. REFUSED: a count of instances that cannot be had. STUCK: an error when an update would end the old instances.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bloomery.cli import emulating
from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Hosting, Surroundings
from bloomery.sagemaker.emulator.faults import Faults, Rule


class StandInFleet:
    def __init__(self) -> None:
        self._running: dict[str, EndpointSpec] = {}
        self._successors: dict[str, EndpointSpec] = {}
        self._counts: dict[str, dict[str, int]] = {}

    async def start(self, spec: EndpointSpec, phase: Callable[[str], None]) -> None:
        self._running[spec.key] = spec
        self._counts[spec.key] = {variant.name: variant.instance_count for variant in spec.variants}
        await self._deploy(spec, phase)

    async def _deploy(self, spec: EndpointSpec, phase: Callable[[str], None]) -> None:
        wanted = spec.variants[0].container.environment
        phase("waiting for /ping")
        await asyncio.sleep(float(wanted.get("SECONDS", "0")))
        await _held(wanted)
        if "FAILURE" in wanted:
            raise DeploymentFailure(wanted["FAILURE"])
        if "FAULT" in wanted:
            raise RuntimeError(wanted["FAULT"])

    async def stop(self, endpoint: str) -> None:
        spec = self._running.pop(endpoint, None)
        if spec is not None:
            await asyncio.sleep(float(spec.variants[0].container.environment.get("STOPPING", "0")))
            print(f"stopped {endpoint}", flush=True)

    async def scale(self, endpoint: str, variant: str, count: int) -> None:
        wanted = self._running[endpoint].variants[0].container.environment
        await _held(wanted)
        _check_room(wanted, count)
        self._counts[endpoint][variant] = count
        print(f"scaled {endpoint} {variant} to {count}", flush=True)

    def counts(self, endpoint: str) -> dict[str, int]:
        return self._counts[endpoint]

    def weigh(self, endpoint: str, weights: Mapping[str, float]) -> None:
        print(f"weights of {endpoint}: {dict(weights)}", flush=True)

    async def stage(self, spec: EndpointSpec, counts: Mapping[str, int], phase: Callable[[str], None]) -> None:
        self._successors[spec.key] = spec
        _check_room(spec.variants[0].container.environment, max(counts.values()))
        await self._deploy(spec, phase)
        print(f"staged {dict(counts)} of {spec.name}", flush=True)

    def shift(self, endpoint: str, share: float) -> None:
        print(f"share of {endpoint}: {share:g}", flush=True)

    async def promote(self, endpoint: str) -> None:
        wanted = self._running[endpoint].variants[0].container.environment
        if "STUCK" in wanted:
            raise RuntimeError(wanted["STUCK"])
        self._running[endpoint] = spec = self._successors.pop(endpoint)
        self._counts[endpoint] = {variant.name: variant.instance_count for variant in spec.variants}
        print(f"promoted {endpoint}", flush=True)

    async def withdraw(self, endpoint: str) -> None:
        self._successors.pop(endpoint, None)
        print(f"withdrawn {endpoint}", flush=True)

    def load(self, endpoint: str, variant: str) -> float:
        return 0.0

    def last_lines(self, endpoint: str, count: int) -> list[str]:
        return [f"a line of {endpoint}"] if endpoint in self._running else []

    async def close(self, grace: float) -> None:
        print(f"closed with {grace:g} s for {sorted(self._running)}", flush=True)
        if grace and "STAND_IN_CLOSES_NEVER" in os.environ:
            await asyncio.Event().wait()


def _check_room(wanted: Mapping[str, str], count: int) -> None:
    if str(count) == wanted.get("REFUSED"):
        raise DeploymentFailure(f"no room for {count} instances")


async def _held(wanted: Mapping[str, str]) -> None:
    while "HOLD" in wanted and Path(wanted["HOLD"]).exists():  # noqa: ASYNC110 - another process removes it
        await asyncio.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--state")
    parser.add_argument("--host")
    parser.add_argument("--tables")
    parser.add_argument("--fault", action="append", default=[])
    given = parser.parse_args()

    def host(around: Surroundings) -> Hosting:
        return Hosting(StandInFleet(), lambda app: None, faults)

    faults = Faults()
    for text in given.fault:
        faults.add(Rule.parse(text))
    return emulating.emulate(emulating.Wanted(given.host, given.port, given.state, [], None, tables=given.tables), host)


if __name__ == "__main__":
    sys.exit(main())
