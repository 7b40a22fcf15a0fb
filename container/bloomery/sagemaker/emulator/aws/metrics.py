"""Metrics of invocations, into CloudWatch under SageMaker's names (namespace AWS/SageMaker, latencies in
microseconds), as statistics of a few seconds each."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.periodic import Periodic
from bloomery.sagemaker.emulator.deployment import Statistics

log = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
_INTERVAL = 5.0  # seconds; SageMaker's is a minute
_GRAIN, _REMEMBERED = 0.1, 900.0  # seconds: how finely, and how long the scaler can look back
_BATCH = 500  # CloudWatch takes 1000
# What is counted per instance of a variant, and what it is called where it is counted per copy of a component.
_PER_COPY = {
    "InvocationsPerInstance": "InvocationsPerCopy",
    "ConcurrentRequestsPerModel": "ConcurrentRequestsPerCopy",
}


@dataclass(frozen=True)
class Invocation:
    """What is counted of one. ``status``: the container's, 0 when it gave none. Times in seconds."""

    region: str
    endpoint: str
    variant: str
    instances: int
    status: int
    model: float  # from the request to the container until the last byte of its answer
    overhead: float  # everything else
    concurrent: int  # requests that the instance had, this one included
    first_byte: float | None = None  # of a stream
    component: str | None = None  # an inference component, whose copies the instances are


class Metrics:
    """Takes numbers at once; a task of its own hands them on."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._held: dict[tuple[str, tuple[tuple[str, str], ...], str, str], Statistics] = {}
        self._recent: dict[tuple[tuple[tuple[str, str], ...], str], deque[tuple[float, Statistics]]] = {}
        self._periodic = Periodic(self.flush, _INTERVAL)

    def count(self, call: Invocation) -> None:
        """One invocation has ended."""
        for name, unit, value in _values(call):
            if call.component is not None:
                self.add(
                    call.region, {"InferenceComponentName": call.component}, _PER_COPY.get(name, name), unit, value
                )
            if call.component is None or name not in _PER_COPY:
                dimensions = {"EndpointName": call.endpoint, "VariantName": call.variant}
                self.add(call.region, dimensions, name, unit, value)

    def add(self, region: str, dimensions: dict[str, str], name: str, unit: str, value: float) -> None:
        """One value."""
        key = (region, tuple(dimensions.items()), name, unit)
        self._held.setdefault(key, Statistics()).add(value)
        self._remember(dimensions, name, value)
        self._periodic.begin()

    def window(self, dimensions: Mapping[str, str], name: str, seconds: float, ago: int) -> Statistics:
        """Of the period of so many seconds that ended ``ago`` periods ago."""
        end = time.monotonic() - ago * seconds
        found = Statistics()
        for at, values in self._recent.get((tuple(sorted(dimensions.items())), name), ()):
            if end - seconds <= at < end:
                found.merge(values)
        return found

    def _remember(self, dimensions: Mapping[str, str], name: str, value: float) -> None:
        kept = self._recent.setdefault((tuple(sorted(dimensions.items())), name), deque())
        now = time.monotonic()
        if not kept or now - kept[-1][0] > _GRAIN:
            kept.append((now, Statistics()))
            while now - kept[0][0] > _REMEMBERED:
                kept.popleft()
        kept[-1][1].add(value)

    async def flush(self) -> None:
        """Hand on what has come in. What cannot be delivered is dropped, and said."""
        held, self._held = self._held, {}
        by_region: dict[str, list[dict[str, Any]]] = {}
        for (region, dimensions, name, unit), found in held.items():
            by_region.setdefault(region, []).append(_datum(dimensions, name, unit, found))
        for region, data in by_region.items():
            for start in range(0, len(data), _BATCH):
                batch = data[start : start + _BATCH]
                try:
                    await self._clients.call(
                        "cloudwatch", region, "put_metric_data", Namespace=NAMESPACE, MetricData=batch
                    )
                except Exception as error:  # botocore's many; metrics must not end anything
                    log.warning("metrics were lost: %s", error)

    async def close(self) -> None:
        """Flush for the last time."""
        await self._periodic.end()
        await self.flush()


def _values(call: Invocation) -> Iterable[tuple[str, str, float]]:
    failed = call.status == 0 or call.status >= 500
    yield "Invocations", "None", 1
    yield "InvocationsPerInstance", "None", 1 / max(1, call.instances)
    yield "Invocation4XXErrors", "None", 400 <= call.status < 500
    yield "Invocation5XXErrors", "None", failed
    yield "InvocationModelErrors", "None", failed or call.status >= 300
    yield "ModelLatency", "Microseconds", call.model * 1e6
    yield "OverheadLatency", "Microseconds", call.overhead * 1e6
    yield "ConcurrentRequestsPerModel", "Count", call.concurrent
    if call.first_byte is not None:
        yield "FirstChunkModelLatency", "Microseconds", call.first_byte * 1e6
        yield "FirstChunkLatency", "Microseconds", (call.first_byte + call.overhead) * 1e6


def _datum(dimensions: tuple[tuple[str, str], ...], name: str, unit: str, found: Statistics) -> dict[str, Any]:
    return {
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
        "Unit": unit,
        "StatisticValues": {
            "SampleCount": found.count,
            "Sum": found.total,
            "Minimum": found.least,
            "Maximum": found.most,
        },
    }
