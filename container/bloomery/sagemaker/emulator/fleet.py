"""Runs endpoints: their variants' instances, all started at once, watched, scaled and ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bloomery.sagemaker.emulator.artefacts import Artefacts
from bloomery.sagemaker.emulator.clients import Clients
from bloomery.sagemaker.emulator.container import sweep
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Surroundings, VariantSpec, component_key
from bloomery.sagemaker.emulator.images import Images
from bloomery.sagemaker.emulator.instance import GRACE, Instance
from bloomery.sagemaker.emulator.logs import Logs
from bloomery.sagemaker.emulator.metrics import Metrics

# Servers close idle connections after 5 s (uvicorn, node) or later; a request on one that closes just now is lost.
_KEPT_ALIVE = 4.0


@dataclass
class Variant:
    """A variant with its instances."""

    spec: VariantSpec
    model_dir: Path | None = None  # once its data is there
    instances: list[Instance] = field(default_factory=list)

    @property
    def healthy(self) -> list[Instance]:
        """Those that take requests."""
        return [instance for instance in self.instances if instance.healthy]

    def choose(self) -> Instance | None:
        """The healthy instance with the fewest requests outstanding; None when there is none."""
        healthy = self.healthy
        if not healthy:
            return None
        fewest = min(instance.outstanding for instance in healthy)
        return random.choice([instance for instance in healthy if instance.outstanding == fewest])


@dataclass
class Endpoint:
    """One that runs, or is about to. ``serving`` from its first being in service on."""

    spec: EndpointSpec
    variants: dict[str, Variant]
    serving: bool = False

    def choose(self) -> Variant | None:
        """A variant by weight, of those that can answer; None when none can."""
        able = [variant for variant in self.variants.values() if variant.healthy]
        weights = [variant.spec.weight for variant in able]
        if not sum(weights):
            return None
        return random.choices(able, weights)[0]


class LocalFleet:
    """Implements ``deployment.Fleet`` with processes of this machine."""

    def __init__(self, around: Surroundings, clients: Clients, logs: Logs, metrics: Metrics) -> None:
        self._around, self._clients, self._logs, self._metrics = around, clients, logs, metrics
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

    def component(self, endpoint: str, name: str) -> Endpoint | None:
        """The inference component of that endpoint, whether or not it takes requests yet."""
        found = self._endpoints.get(component_key(name))
        return found if found and found.spec.name == endpoint else None

    async def start(self, spec: EndpointSpec, phase: Callable[[str], None]) -> None:
        """As ``Fleet.start``."""
        await self._sweep()
        variants = {variant.name: Variant(variant) for variant in spec.variants}
        endpoint = self._endpoints[spec.key] = Endpoint(spec, variants)
        wanted = [(variant, variant.spec.instance_count) for variant in endpoint.variants.values()]
        try:
            await self._grow(endpoint, wanted, phase)
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
        """As ``Fleet.scale``. The instances that go are those with the fewest requests; they finish what they have."""
        running = self._endpoints[endpoint]
        scaled = running.variants[variant]
        missing = count - len(scaled.instances)
        if missing > 0:
            await self._grow(running, [(scaled, missing)], lambda _: None)
            return
        leaving = sorted(scaled.instances, key=lambda instance: instance.outstanding)[:-missing] if missing else []
        scaled.instances = [instance for instance in scaled.instances if instance not in leaving]
        await asyncio.gather(*(instance.end() for instance in leaving))

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
        self, endpoint: Endpoint, wanted: Iterable[tuple[Variant, int]], phase: Callable[[str], None]
    ) -> None:
        """Start so many more instances, all at once. Those started are ended when one of them fails."""
        tasks = []
        alone = len(endpoint.variants) == 1
        for variant, count in wanted:
            heard = phase if alone else _named(variant.spec.name, phase)
            tasks.append(asyncio.create_task(self._grow_variant(endpoint, variant, count, heard)))
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            await _cancel(tasks)
            raise

    async def _grow_variant(
        self, endpoint: Endpoint, variant: Variant, count: int, phase: Callable[[str], None]
    ) -> None:
        spec = variant.spec
        if spec.container is None:  # machines alone; inference components come later
            return
        if variant.model_dir is None:
            variant.model_dir = await self._artefacts.fetch(
                spec.container.data, endpoint.spec.region, spec.download_timeout, phase
            )
        added = [
            Instance(endpoint.spec, spec, variant.model_dir, self._around, self._images, self._logs, self.session)
            for _ in range(count)
        ]
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

    async def _end(self, endpoint: Endpoint, grace: float) -> None:
        instances = [each for variant in endpoint.variants.values() for each in variant.instances]
        await asyncio.gather(*(instance.end(grace) for instance in instances))

    async def _sweep(self) -> None:
        """What a killed emulator left is removed once, before the first container of ours."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(asyncio.to_thread(sweep, self._around.state))
        await asyncio.shield(self._sweeping)


def _named(name: str, phase: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: phase(f"{name}: {text}")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
