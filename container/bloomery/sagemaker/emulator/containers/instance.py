"""One instance of a variant: its container is started, checked by /ping, watched, restarted when it dies, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.aws.logs import Logs
from bloomery.sagemaker.emulator.containers.container import Container
from bloomery.sagemaker.emulator.containers.images import Images
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Surroundings, VariantSpec
from bloomery.sagemaker.emulator.faults import Faults, Kind, Rule

GRACE = 30.0  # seconds between SIGTERM and SIGKILL, as SageMaker has it
_PING_TIMEOUT = 2.0  # seconds, as SageMaker has it
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # between two pings: seldom enough for logs that show them
_LONGEST_BACKOFF = 30.0  # seconds before a container that keeps dying is started again
_CANNOT_RUN = (125, 126, 127)  # docker's own for: no such image or a wrong option; no program; not found


class Instance:
    """Takes requests while ``healthy``; ``outstanding`` are those it has now."""

    def __init__(
        self,
        endpoint: EndpointSpec,
        variant: VariantSpec,
        model_dir: Path,
        around: Surroundings,
        images: Images,
        logs: Logs,
        session: aiohttp.ClientSession,
        faults: Faults,
    ) -> None:
        self.id = f"i-{secrets.token_hex(8)}"
        self.variant = variant
        self.healthy = False
        self.outstanding = 0
        self._idle = asyncio.Event()
        self.ended = False
        self._endpoint, self._model_dir = endpoint, model_dir
        self._around, self._images, self._logs, self._session = around, images, logs, session
        self._faults = faults
        self._doom: Rule | None = None  # by which the container that runs now is to die
        self._invocations = 0  # of it
        self._container: Container | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where its container answers."""
        assert self._container is not None
        return f"http://127.0.0.1:{self._container.port}"

    @property
    def stream(self) -> str:
        """Its log stream."""
        return f"{self.variant.name}/{self.id}"

    async def start(self, phase: Callable[[str], None]) -> None:
        """Return when it is healthy. Raises DeploymentFailure; the container is ended then."""
        phase("starting the container")
        try:
            await self._launch()
            phase("waiting for /ping")
            await self._until_healthy()
        except DeploymentFailure:
            await self.end(0)  # it serves nobody, so there is nothing to wait for
            raise
        self._watching = asyncio.create_task(self._watch())

    def take(self) -> None:
        """It has one more request."""
        self.outstanding += 1

    def release(self) -> None:
        """A request has been answered."""
        self.outstanding -= 1
        if not self.outstanding:
            self._idle.set()

    def invoked(self) -> None:
        """A request is about to be sent to its container."""
        if self._doom is not None and self._doom.invocations == self._invocations and self._container is not None:
            self._die(self._container)
        self._invocations += 1

    async def drain(self) -> None:
        """No more requests; those that it has are answered first. Each has a time limit of its own, so this ends."""
        await self._retire()
        while self.outstanding:
            self._idle.clear()
            await self._idle.wait()
        await self.end()

    async def end(self, grace: float = GRACE) -> None:
        """No more requests; SIGTERM, ``grace`` seconds, SIGKILL."""
        await self._retire()
        if self._container is not None:
            await self._container.end(grace)

    async def _retire(self) -> None:
        self.healthy, self.ended = False, True
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    def say(self, line: str) -> None:
        """A line of our own in the container's log."""
        self._write(f"[sagemaker-local] {line}")

    async def _launch(self) -> None:
        assert self.variant.container is not None
        container = await Container.start(
            f"bloomery-{self._endpoint.name}-{self.id}",
            self.variant.container,
            self._model_dir,
            self._endpoint.region,
            self._around,
            self._images,
            self._write,
        )
        self._container = container
        if self.ended:  # while it was being started
            await container.end(0)

    async def _until_healthy(self) -> None:
        """Raises DeploymentFailure when the container ends first, or its time is over."""
        container, limit = self._container, self.variant.startup_timeout
        assert container is not None
        began = time.monotonic()
        slow = self._strike(Kind.SLOW_START)
        not_before = began + (slow.seconds or 0 if slow else 0)
        try:
            async with asyncio.timeout(limit):
                while time.monotonic() < not_before or not await self._ping(container):
                    pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, (time.monotonic() - began) / 5))
                    await asyncio.wait({container.exited}, timeout=pause)
                    if container.exited.done():
                        self.say(f"the container ended ({_how(container)}) before it answered /ping with 200")
                        if container.returncode in _CANNOT_RUN:
                            raise DeploymentFailure(words.CANNOT_START.format(variant=self.variant.name))
                        raise self._unhealthy()
        except TimeoutError:
            self.say(
                f"no 200 from /ping within {limit:g} s (ContainerStartupHealthCheckTimeoutInSeconds); the container "
                "is ended"
            )
            raise self._unhealthy() from None
        self._invocations, self._doom = 0, self._strike(Kind.CONTAINER_DIES)
        if self._doom is not None and self._doom.seconds is not None:
            asyncio.get_running_loop().call_later(self._doom.seconds, self._die, container)
        self.healthy = True

    def _strike(self, kind: Kind) -> Rule | None:
        return self._faults.strike(kind, endpoint=self._endpoint.name, instance_type=self.variant.instance_type)

    def _die(self, container: Container) -> None:
        if not container.exited.done():
            self.say("a fault rule kills the container")
            container.kill()

    def _unhealthy(self) -> DeploymentFailure:
        text = words.NOT_HEALTHY if self._endpoint.component is None else words.COMPONENT_NOT_HEALTHY
        return DeploymentFailure(text.format(variant=self.variant.name))

    async def _ping(self, container: Container) -> bool:
        timeout = aiohttp.ClientTimeout(total=_PING_TIMEOUT)
        try:
            async with self._session.get(f"http://127.0.0.1:{container.port}/ping", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _watch(self) -> None:
        """Start the container again whenever it ends."""
        backoff = 1.0
        while True:
            container = self._container
            assert container is not None
            began = time.monotonic()
            await asyncio.shield(container.exited)
            self.healthy = False
            if time.monotonic() - began > 60:
                backoff = 1.0
            self.say(f"the container ended ({_how(container)}); it is started again in {backoff:g} s")
            await container.end(0)
            await asyncio.sleep(backoff)
            backoff = min(_LONGEST_BACKOFF, backoff * 2)
            with contextlib.suppress(DeploymentFailure):  # said already; the next round tries again
                await self._launch()
                await self._until_healthy()
                self.say("the container is healthy again")
                continue
            if self._container is not None:
                await self._container.end(0)

    def _write(self, line: str) -> None:
        self._logs.write(self._endpoint.region, self._endpoint.key, self.stream, line)


def _how(container: Container) -> str:
    code = container.returncode
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
