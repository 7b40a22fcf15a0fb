"""Runs endpoints: their variants' instances, all started at once, watched, scaled and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import aiohttp

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.logs import Logs
from bloomery.sagemaker.emulator.aws.metrics import Metrics
from bloomery.sagemaker.emulator.containers.artefacts import Artefacts
from bloomery.sagemaker.emulator.containers.container import sweep
from bloomery.sagemaker.emulator.containers.images import Images
from bloomery.sagemaker.emulator.containers.instance import GRACE, Instance
from bloomery.sagemaker.emulator.containers.running import Endpoint, Generation, Variant
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Surroundings, VariantSpec, component_key
from bloomery.sagemaker.emulator.faults import Faults, Kind

# Servers close idle connections after 5 s (uvicorn, node) or later; a request on one that closes just now is lost.
_KEPT_ALIVE = 4.0


class LocalFleet:
    """Implements ``deployment.Fleet`` with processes of this machine."""

    def __init__(self, around: Surroundings, clients: Clients, logs: Logs, metrics: Metrics, faults: Faults) -> None:
        self._around, self._clients, self._logs, self._metrics = around, clients, logs, metrics
        self._faults = faults
        self._images = Images(around.images)
        self._artefacts = Artefacts(around)
        self._endpoints: dict[str, Endpoint] = {}
        self._session: aiohttp.ClientSession | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.before_close: Callable[[], Awaitable[None]] | None = None  # for what uses the session on its own

    @property
    def session(self) -> aiohttp.ClientSession:
        """Connections to the containers, kept open between requests."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_ALIVE)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    def serving(self, key: str) -> Endpoint | None:
        """The endpoint or inference component, if it takes requests."""
        endpoint = self._endpoints.get(key)
        return endpoint if endpoint and endpoint.serving else None

    def all_serving(self) -> list[Endpoint]:
        """Every endpoint and inference component that takes requests."""
        return [endpoint for endpoint in self._endpoints.values() if endpoint.serving]

    def component(self, endpoint: str, name: str) -> Endpoint | None:
        """The inference component of that endpoint, whether or not it takes requests yet."""
        found = self._endpoints.get(component_key(name))
        return found if found and found.spec.name == endpoint else None

    async def start(self, spec: EndpointSpec, phase: Callable[[str], None]) -> None:
        """As ``Fleet.start``."""
        await self._sweep()
        endpoint = self._endpoints[spec.key] = Endpoint(Generation.of(spec))
        wanted = [(variant, variant.spec.instance_count) for variant in endpoint.variants.values()]
        try:
            await self._grow(endpoint.current, wanted, phase)
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self._end(endpoint, 0)
            await self._logs.flush()
            raise
        endpoint.serving = True

    async def stop(self, endpoint: str) -> None:
        """As ``Fleet.stop``."""
        running = self._endpoints.pop(endpoint, None)
        if running is not None:
            running.serving = False
            await self._end(running, GRACE)
        await self._logs.forget(endpoint)

    async def scale(self, endpoint: str, variant: str, count: int) -> None:
        """As ``Fleet.scale``. The instances that go are those with the fewest requests."""
        running = self._endpoints[endpoint]
        scaled = running.variants[variant]
        missing = count - len(scaled.instances)
        if missing > 0:
            await self._grow(running.current, [(scaled, missing)], lambda _: None)
            return
        by_requests = sorted(scaled.instances, key=lambda instance: instance.outstanding)
        leaving = by_requests[: len(by_requests) - count]
        scaled.instances = [instance for instance in scaled.instances if instance not in leaving]
        await _drain(running, leaving)

    def counts(self, endpoint: str) -> dict[str, int]:
        """As ``Fleet.counts``."""
        return {name: len(variant.instances) for name, variant in self._endpoints[endpoint].variants.items()}

    def weigh(self, endpoint: str, weights: Mapping[str, float]) -> None:
        """As ``Fleet.weigh``."""
        variants = self._endpoints[endpoint].variants
        for name, weight in weights.items():
            variants[name].spec = replace(variants[name].spec, weight=weight)

    async def stage(self, spec: EndpointSpec, counts: Mapping[str, int], phase: Callable[[str], None]) -> None:
        """As ``Fleet.stage``."""
        endpoint = self._endpoints[spec.key]
        if endpoint.successor is None:
            endpoint.successor = Generation.of(spec)
        variants = endpoint.successor.variants
        wanted = [(variants[name], count - len(variants[name].instances)) for name, count in counts.items()]
        await self._grow(endpoint.successor, wanted, phase)

    def shift(self, endpoint: str, share: float) -> None:
        """As ``Fleet.shift``."""
        self._endpoints[endpoint].share = share

    async def promote(self, endpoint: str) -> None:
        """As ``Fleet.promote``."""
        running = self._endpoints[endpoint]
        if running.successor is not None:
            old, running.current = running.current, running.successor
            running.successor, running.share = None, 0.0
            await _drain(running, old.instances)

    async def withdraw(self, endpoint: str) -> None:
        """As ``Fleet.withdraw``."""
        running = self._endpoints[endpoint]
        failed, running.successor, running.share = running.successor, None, 0.0
        if failed is not None:
            await _drain(running, failed.instances)
            await self._logs.flush()

    def load(self, endpoint: str, variant: str) -> float:
        """As ``Fleet.load``."""
        running = self._endpoints.get(endpoint)
        healthy = running.variants[variant].healthy if running and variant in running.variants else []
        return sum(instance.outstanding for instance in healthy) / max(1, len(healthy))

    def last_lines(self, endpoint: str, count: int) -> list[str]:
        """As ``Fleet.last_lines``."""
        return self._logs.last(endpoint, count)

    async def close(self, grace: float) -> None:
        """As ``Fleet.close``."""
        if self.before_close is not None:
            await self.before_close()
        endpoints, self._endpoints = list(self._endpoints.values()), {}
        await asyncio.gather(*(self._end(endpoint, grace) for endpoint in endpoints))
        if self._session is not None:
            await self._session.close()
        await self._logs.close()
        await self._metrics.close()
        await asyncio.to_thread(self._clients.close)

    async def _grow(
        self, generation: Generation, wanted: Iterable[tuple[Variant, int]], phase: Callable[[str], None]
    ) -> None:
        """Start so many more instances, all at once. Those started are ended when one of them fails."""
        tasks = []
        alone = len(generation.variants) == 1
        for variant, count in wanted:
            heard = phase if alone else _named(variant.spec.name, phase)
            tasks.append(asyncio.create_task(self._grow_variant(generation, variant, count, heard)))
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            await _cancel(tasks)
            raise

    async def _grow_variant(
        self, generation: Generation, variant: Variant, count: int, phase: Callable[[str], None]
    ) -> None:
        spec = variant.spec
        if count > 0 and generation.spec.component is None:  # a component's machines are had before
            self._provision(generation.spec.name, spec.instance_type)
        if spec.container is None:  # machines alone; inference components come later
            return
        if variant.model_dir is None:
            variant.model_dir = await self._artefacts.fetch(
                spec.container.data, generation.spec.region, spec.download_timeout, phase
            )
        added = [self._instance(generation, spec, variant.model_dir) for _ in range(count)]
        variant.instances += added
        tasks = [asyncio.create_task(instance.start(phase)) for instance in added]
        try:
            await asyncio.gather(*tasks)
        except BaseException as error:
            await _cancel(tasks)
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.gather(*(instance.end(0) for instance in added))
                variant.instances = [instance for instance in variant.instances if instance not in added]
            raise

    def _provision(self, endpoint: str, instance_type: str) -> None:
        if self._faults.strike(Kind.INSUFFICIENT_INSTANCE_CAPACITY, instance_type=instance_type, endpoint=endpoint):
            raise DeploymentFailure(words.NO_INSTANCES.format())

    def _instance(self, generation: Generation, spec: VariantSpec, model_dir: Path) -> Instance:
        around, faults = self._around, self._faults
        return Instance(generation.spec, spec, model_dir, around, self._images, self._logs, self.session, faults)

    async def _end(self, endpoint: Endpoint, grace: float) -> None:
        await asyncio.gather(*(instance.end(grace) for instance in endpoint.instances))

    async def _sweep(self) -> None:
        """What a killed emulator left is removed once, before the first container of ours."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(asyncio.to_thread(sweep, self._around.state))
        await asyncio.shield(self._sweeping)


async def _drain(endpoint: Endpoint, instances: list[Instance]) -> None:
    """End instances that no longer get requests. If this is cancelled, they are known as leaving: ``stop`` follows."""
    endpoint.leaving.update(instances)
    await asyncio.gather(*(instance.drain() for instance in instances))
    endpoint.leaving.difference_update(instances)


def _named(name: str, phase: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: phase(f"{name}: {text}")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
