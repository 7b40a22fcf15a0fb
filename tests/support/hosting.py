"""What runs the SageMaker emulator's endpoints, alone: real containers and routes, and moto for the rest of AWS."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import io
import json
import logging
import sys
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from aiohttp import web
from botocore.config import Config
from moto.server import ThreadedMotoServer

from bloomery.sagemaker.emulator.containers.fleet import LocalFleet
from bloomery.sagemaker.emulator.containers.hosting import host
from bloomery.sagemaker.emulator.deployment import (
    AsyncOutput,
    ContainerSpec,
    EndpointSpec,
    ImageRule,
    ModelData,
    Routing,
    Surroundings,
    VariantSpec,
)
from bloomery.sagemaker.emulator.faults import Faults
from bloomery.sagemaker.emulator.invoking.limits import Limits

ECHO = Path(__file__).parent / "echo_container.py"
REGION, ACCOUNT = "eu-west-1", "123456789012"


@dataclass
class World:
    """``fleet`` under test; ``s3``, ``logs``, ``cloudwatch``: boto3 clients of moto; ``runtime``: of the routes."""

    fleet: LocalFleet
    around: Surroundings
    url: str  # of the routes
    bucket: str
    _opened: contextlib.ExitStack
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._client(service)
        return self._clients[service]

    def _client(self, service: str) -> Any:
        url = {"sagemaker-runtime": self.url, "s3": moto_url()}.get(service, self.around.url)
        client = boto3.client(
            service,
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64),
        )
        self._opened.callback(client.close)
        return client

    async def start(self, spec: EndpointSpec, phase: Callable[[str], None] = lambda _: None) -> None:
        await self.fleet.start(spec, phase)

    async def ask(self, endpoint: str, do: object, **more: Any) -> Any:
        """Have the echo container do something; its JSON answer."""
        answer = await asyncio.to_thread(
            self.client("sagemaker-runtime").invoke_endpoint,
            EndpointName=endpoint,
            Body=json.dumps({"do": do}),
            **more,
        )
        return json.load(answer["Body"])

    def put(self, key: str, body: bytes) -> str:
        self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def instances(self, endpoint: str) -> list[Any]:
        found = self.fleet.serving(endpoint)
        assert found is not None
        return [instance for variant in found.variants.values() for instance in variant.instances]


@functools.cache
def moto_url() -> str:
    """One server for the whole run: it takes half a second to stop, and every test has a bucket of its own."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    return f"http://127.0.0.1:{server.get_host_and_port()[1]}"


@contextlib.asynccontextmanager
async def hosted(
    state: Path, *rules: ImageRule, limits: Limits | None = None, faults: Faults | None = None, **more: Any
) -> AsyncIterator[World]:
    """A world whose image ``echo`` is ``echo_container.py``; ``more``: fields of Surroundings."""
    runner, url = None, moto_url()
    images = (*rules, ImageRule("^echo", f"{sys.executable} {ECHO}"))
    keys = {"access_key": "key", "secret_key": "secret"}
    fields: dict[str, Any] = {"url": url, "s3_url": url, "images": images, **keys, **more}
    around = Surroundings(region=REGION, account=ACCOUNT, state=state, **fields)
    hosting = host(around, limits, faults)
    assert isinstance(hosting.fleet, LocalFleet)
    with contextlib.ExitStack() as clients:
        try:
            app = web.Application()
            hosting.add_routes(app)
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            bucket = f"bucket-{uuid.uuid4()}"
            world = World(hosting.fleet, around, f"http://127.0.0.1:{runner.addresses[0][1]}", bucket, clients)
            world.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            yield world
        finally:
            if runner is not None:
                await runner.cleanup()
            await hosting.fleet.close(0)


def endpoint(
    name: str | None = None,
    *,
    image: str = "echo",
    environment: Mapping[str, str] | None = None,
    data: ModelData | None = None,
    count: int = 1,
    startup: float = 60,
    download: float = 60,
    variants: Mapping[str, float] | None = None,
    output: AsyncOutput | None = None,
    routing: Routing = Routing.RANDOM,
) -> EndpointSpec:
    """An endpoint of the echo container; ``variants``: weights by name."""
    name = name or f"e-{uuid.uuid4().hex[:12]}"
    container = ContainerSpec(image, environment or {}, data or ModelData(), "model")
    made = tuple(
        VariantSpec(variant, container, "ml.g5.xlarge", count, weight, download, startup, routing)
        for variant, weight in (variants or {"AllTraffic": 1.0}).items()
    )
    return EndpointSpec(name, f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}", "config", made, output)


def packed(files: Mapping[str, bytes], *members: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    """A tar archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return data.getvalue()


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for it, and fail when it does not come."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await asyncio.to_thread(condition):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.05)
