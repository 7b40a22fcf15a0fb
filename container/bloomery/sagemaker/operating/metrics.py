"""How an endpoint has done lately, by CloudWatch: invocations, errors, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bloomery.sagemaker.session import Session

WINDOW = timedelta(minutes=15)
_NAMESPACE = "AWS/SageMaker"
_MICROSECONDS = 1e6  # of a second


@dataclass(frozen=True)
class Latency:
    """Of the model, in seconds; None where CloudWatch has no such figure (an emulator has no percentiles)."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Metrics:
    """Of one variant or component, in the last ``WINDOW``. ``errors``: answers of 4xx and 5xx."""

    what: str
    invocations: int
    client_errors: int
    server_errors: int
    latency: Latency


def of_variant(session: Session, endpoint: str, variant: str, now: datetime) -> Metrics:
    """Raises SageMakerError."""
    return _metrics(session, variant, {"EndpointName": endpoint, "VariantName": variant}, now)


def of_component(session: Session, component: str, now: datetime) -> Metrics:
    """Raises SageMakerError."""
    return _metrics(session, component, {"InferenceComponentName": component}, now)


def _metrics(session: Session, what: str, dimensions: Mapping[str, str], now: datetime) -> Metrics:
    def total(name: str) -> int:
        return int(sum(each["Sum"] for each in _points(session, name, dimensions, now, Statistics=["Sum"])))

    invocations = total("Invocations")
    latency = _latency(session, dimensions, now) if invocations else Latency()
    return Metrics(what, invocations, total("Invocation4XXErrors"), total("Invocation5XXErrors"), latency)


def _latency(session: Session, dimensions: Mapping[str, str], now: datetime) -> Latency:
    """Statistics and percentiles cannot be asked for together."""
    plain = _points(session, "ModelLatency", dimensions, now, Statistics=["Average", "Maximum"])
    ranked = _points(session, "ModelLatency", dimensions, now, ExtendedStatistics=["p50", "p90"])
    values = {key: value for point in (*plain, *ranked) for key, value in _values(point)}
    return Latency(values.get("Average"), values.get("p50"), values.get("p90"), values.get("Maximum"))


def _values(point: Mapping[str, Any]) -> Sequence[tuple[str, float]]:
    given = {**point, **(point.get("ExtendedStatistics") or {})}
    return [
        (name, float(given[name]) / _MICROSECONDS)
        for name in ("Average", "Maximum", "p50", "p90")
        if given.get(name) is not None
    ]


def _points(
    session: Session, name: str, dimensions: Mapping[str, str], now: datetime, **statistics: Sequence[str]
) -> list[dict[str, Any]]:
    """One point of the whole window, because percentiles of parts cannot be joined; by time, should there be two."""
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    answer = session.call(
        "cloudwatch",
        "GetMetricStatistics",
        Namespace=_NAMESPACE,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=end - WINDOW,
        EndTime=end,
        Period=int(WINDOW.total_seconds()),
        **statistics,
    )
    return sorted(answer["Datapoints"], key=lambda point: str(point["Timestamp"]))
