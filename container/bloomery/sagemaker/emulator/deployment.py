"""What the control plane asks for, and who makes it run: the seam between the API's records and real processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bloomery.sagemaker.emulator.account.account_tables import AccountTables
from bloomery.sagemaker.emulator.faults import Faults

if TYPE_CHECKING:
    from aiohttp import web


@dataclass(frozen=True)
class ModelData:
    """What lies at /opt/ml/model: an archive, a prefix, or nothing; never both."""

    archive: str | None = None  # s3://bucket/key, one gzip tar
    prefix: str | None = None  # s3://bucket/prefix/, copied file by file


@dataclass(frozen=True)
class ContainerSpec:
    """One container, as CreateModel describes it."""

    image: str
    environment: Mapping[str, str]
    data: ModelData
    model_name: str


class Routing(StrEnum):
    """How a variant's instances share its requests."""

    LEAST_OUTSTANDING_REQUESTS = "LEAST_OUTSTANDING_REQUESTS"
    RANDOM = "RANDOM"


@dataclass(frozen=True)
class VariantSpec:
    """One production variant: ``instance_count`` copies of a container, which get requests by ``weight``.

    Without a container it is only so many machines, on which inference components run.
    """

    name: str
    container: ContainerSpec | None
    instance_type: str
    instance_count: int
    weight: float
    download_timeout: float  # seconds for the model's data: its download and its extraction
    startup_timeout: float  # seconds from the container's start to its first 200 from /ping
    routing: Routing = Routing.RANDOM


@dataclass(frozen=True)
class AsyncOutput:
    """Where the answers of asynchronous invocations go."""

    output: str | None = None  # s3://bucket/prefix; None: each request names its own place
    failure: str | None = None  # s3://bucket/prefix; None: below ``output``
    max_concurrent: int | None = None  # invocations that one instance has at a time; None: SageMaker chooses


@dataclass(frozen=True)
class EndpointSpec:
    """Everything needed to run an endpoint. It outlives the model and the configuration that it was made from.

    An inference component is run like an endpoint, too: one of a single variant, whose instances are its copies.
    """

    name: str
    arn: str  # of the region that the endpoint was created in
    config_name: str
    variants: tuple[VariantSpec, ...]
    async_output: AsyncOutput | None = None
    component: str | None = None  # the inference component that this is, of the endpoint ``name``

    @property
    def key(self) -> str:
        """By which a fleet knows it."""
        return self.name if self.component is None else component_key(self.component)

    @property
    def hosts_components(self) -> bool:
        """Whether it serves nothing by itself."""
        return any(variant.container is None for variant in self.variants)

    @property
    def region(self) -> str:
        """Logs and metrics of the endpoint are in this region."""
        return self.arn.split(":")[3]

    @property
    def account(self) -> str:
        """Twelve digits."""
        return self.arn.split(":")[4]


def component_key(name: str) -> str:
    """The key of an inference component: no possible name of an endpoint."""
    return f"inference-component/{name}"


class Fleet(Protocol):
    """Runs endpoints by their keys, which are unique; for each there is one ``start``, then one ``stop``.

    Between the two an endpoint can be updated: its successor is staged beside the generation that serves, gets a share
    of the requests, and is promoted or withdrawn in the end.
    """

    async def start(self, spec: EndpointSpec, phase: Callable[[str], None]) -> None:
        """Return when every instance is healthy. ``phase`` is told what is going on ("downloading the model").

        Raises ``bloomery.errors.DeploymentFailure``, whose text is the FailureReason; nothing of it is running then.
        When cancelled, it may leave instances behind: ``stop`` follows.
        """

    async def stop(self, endpoint: str) -> None:
        """End whatever runs for the endpoint: SIGTERM, 30 s, SIGKILL. An unknown name is none of its business."""

    async def scale(self, endpoint: str, variant: str, count: int) -> None:
        """Have ``count`` instances of the variant; return when they are healthy, and those that go have gone.

        Raises like ``start``; there are as many as before, then.
        """

    def counts(self, endpoint: str) -> dict[str, int]:
        """The instances that there are, by variant."""

    def weigh(self, endpoint: str, weights: Mapping[str, float]) -> None:
        """From the next request on, variants get requests by these weights."""

    async def stage(self, spec: EndpointSpec, counts: Mapping[str, int], phase: Callable[[str], None]) -> None:
        """Have so many instances, by variant, of the successor ``spec``, beside what serves; they get no requests yet.

        May be called again with larger counts. Raises DeploymentFailure; ``withdraw`` follows then.
        """

    def shift(self, endpoint: str, share: float) -> None:
        """From the next request on, this share of them (0 to 1) goes to the successor."""

    async def promote(self, endpoint: str) -> None:
        """The successor takes over; what served finishes its requests and ends. Return when it has."""

    async def withdraw(self, endpoint: str) -> None:
        """The successor, if there is one, finishes its requests and ends. Return when it has."""

    def load(self, endpoint: str, variant: str) -> float:
        """The requests that each healthy instance of the variant has now, on average; 0 for what is unknown."""

    def last_lines(self, endpoint: str, count: int) -> list[str]:
        """The last lines that its containers wrote, also of one that has failed; [] for an unknown endpoint."""

    async def close(self, grace: float) -> None:
        """The emulator ends: end every container, with ``grace`` seconds for those that drain."""


@dataclass(frozen=True)
class ImageRule:
    """``--image REGEX=COMMAND``: how a container of a matching image is started here."""

    pattern: str
    command: str


@dataclass(frozen=True)
class Surroundings:
    """Where a fleet finds itself."""

    url: str  # of the emulator: what containers get as AWS_ENDPOINT_URL, and where S3, Logs and CloudWatch answer
    region: str  # of whoever does not name one
    account: str  # twelve digits
    state: Path  # a directory of this emulator's alone; it survives restarts
    s3_url: str  # of S3, if that is elsewhere; else ``url``. Writes through ``url`` survive a restart
    access_key: str = field(repr=False)  # for ``url``, and for containers
    secret_key: str = field(repr=False)
    images: tuple[ImageRule, ...] = ()
    log_bodies: Path | None = None  # None: no request's body is kept anywhere
    tables: AccountTables = field(default_factory=AccountTables)  # quotas and prices
    scaler_period: float | None = None  # seconds between two looks of the scaler; None: as the metrics have it


@dataclass
class Statistics:
    """Of the values of one metric."""

    count: int = 0
    total: float = 0.0
    least: float = 0.0
    most: float = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.merge(Statistics(1, value, value, value))

    def merge(self, other: Statistics) -> None:
        """Those of ``other``, too."""
        self.least = min(self.least, other.least) if self.count else other.least
        self.most = max(self.most, other.most) if self.count else other.most
        self.count += other.count
        self.total += other.total

    def value(self, statistic: str) -> float | None:
        """By CloudWatch's name of it; None when there is no value."""
        if not self.count:
            return None
        return {
            "Sum": self.total,
            "Average": self.total / self.count,
            "Minimum": self.least,
            "Maximum": self.most,
            "SampleCount": float(self.count),
        }[statistic]


# What a metric of ours was in the period of so many seconds that ended so many periods ago: dimensions, name, both.
Window = Callable[[Mapping[str, str], str, float, int], Statistics]


@dataclass(frozen=True)
class Hosting:
    """A fleet and the routes by which its endpoints are invoked (``/endpoints/{name}/…``)."""

    fleet: Fleet
    add_routes: Callable[[web.Application], None]
    faults: Faults = field(default_factory=Faults)  # what is to go wrong
    window: Window = lambda dimensions, name, seconds, ago: Statistics()  # nothing is measured
