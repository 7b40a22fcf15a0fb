"""How long a load takes on paper, and what follows for an endpoint: two time-outs and the size of a volume.

The rates are those of docs/operations.md ("How long a load takes"), of which only the processors' was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from bloomery.sagemaker.instances import InstanceType

GB = 10**9
NETWORK_SHARE = 0.8  # of the network's rate that S3 gives
INTERFACE = 100.0  # Gbit/s: a process talks to S3 through one interface, however many a machine has
CORE_SECONDS_PER_GIB = 2.3  # fetching with checksums and TLS; a core is two vCPUs
INTERPRETER = 1.0 * GB  # bytes per second that one process takes from the network or the disk
NVME, GP2 = 2.0 * GB, 0.25 * GB  # bytes per second written; gp2's most is 250 MiB/s
START = 15.0  # seconds: libraries, DeepSpeed's engine, first kernels
SAFETY = 3  # times what is expected
MARGIN = 180  # seconds more until the container must be healthy: a cold image, packages of requirements.txt
SHORTEST, LONGEST = 60, 3600  # seconds that SageMaker takes for either time-out
LARGEST_VOLUME = 512  # GB
_VOLUME_MARGIN = 20  # GB: the image's own files, a package cache


@dataclass(frozen=True)
class LoadTime:
    """Seconds. ``fetch``: source to disk. ``fill``: disk to the accelerators. ``stream``: source to the accelerators,
    instead of both. ``start``: all that does not depend on the size."""

    fetch: float
    fill: float
    stream: float
    start: float = START

    @property
    def expected(self) -> float:
        """With a fetch to disk, which is the default."""
        return self.fetch + self.fill + self.start

    @property
    def expected_streaming(self) -> float:
        """With option.load_format=stream."""
        return self.stream + self.start


@dataclass(frozen=True)
class Timeouts:
    """``download``: ModelDataDownloadTimeoutInSeconds, where SageMaker itself fetches the checkpoint (ModelDataSource).
    ``startup``: ContainerStartupHealthCheckTimeoutInSeconds, where the container does. ``needed``: what the latter
    would have to be, were there no limit."""

    download: int
    startup: int
    needed: int

    @property
    def short(self) -> bool:
        """Whether the limit leaves less than the usual safety."""
        return self.needed > LONGEST


@dataclass(frozen=True)
class Volume:
    """``size``: VolumeSizeInGB; None: not to be set, the machine has ``local`` GB of NVMe. ``enough``: whether the
    checkpoint has room."""

    size: int | None
    local: int
    enough: bool


def load_time(machine: InstanceType, fetched_bytes: int, weight_bytes: int, rank_bytes: int) -> LoadTime:
    """``rank_bytes``: what the fullest rank reads of ``weight_bytes``."""
    network = fetched_bytes * 8 / (NETWORK_SHARE * min(machine.network, INTERFACE) * 1e9)
    processors = fetched_bytes / (1 << 30) * CORE_SECONDS_PER_GIB / max(1, machine.vcpus // 2)
    disk = NVME if machine.local_storage else GP2
    cached = weight_bytes < machine.memory * (1 << 20) * 0.7
    own = rank_bytes / INTERPRETER
    return LoadTime(
        fetch=max(network, processors, fetched_bytes / INTERPRETER, fetched_bytes / disk),
        fill=own if cached else max(own, weight_bytes / disk),
        stream=max(network, processors, own),
    )


def timeouts(load: LoadTime) -> Timeouts:
    """In whole minutes, three times what is expected."""
    needed = _minutes(SAFETY * load.expected + MARGIN)
    return Timeouts(_within(_minutes(SAFETY * load.fetch)), _within(needed), needed)


def volume(machine: InstanceType, fetched_bytes: int) -> Volume:
    """Twice the checkpoint, because a new version is fetched beside the old one."""
    if machine.local_storage:
        return Volume(None, machine.local_storage, fetched_bytes < machine.local_storage * GB * 0.9)
    size = ceil(2 * fetched_bytes / GB) + _VOLUME_MARGIN
    return Volume(min(size, LARGEST_VOLUME), 0, fetched_bytes / GB + _VOLUME_MARGIN <= LARGEST_VOLUME)


def _minutes(seconds: float) -> int:
    return ceil(seconds / 60) * 60


def _within(seconds: int) -> int:
    return max(SHORTEST, min(LONGEST, seconds))
