"""Everything that can be said of an endpoint at one look."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from bloomery.errors import AccessError
from bloomery.sagemaker.operating import metrics
from bloomery.sagemaker.operating.description import SERVING, Component, Description, components, existing
from bloomery.sagemaker.operating.logs import LogLine, Logs, group_of_component, group_of_endpoint, start_of_tail
from bloomery.sagemaker.operating.metrics import Metrics
from bloomery.sagemaker.session import Session

_TAIL, _TAIL_FAILED = 5, 60  # lines of the log


@dataclass(frozen=True)
class Status:
    """``elapsed``: in this status. ``phase``: what is likely to be going on; "" when nothing is. ``notes``: what could
    not be looked at.
    """

    endpoint: Description
    components: tuple[Component, ...]
    elapsed: timedelta
    phase: str
    lines: tuple[LogLine, ...]
    metrics: tuple[Metrics, ...]
    notes: tuple[str, ...]


def look(session: Session, name: str, now: datetime) -> Status:
    """Raises SageMakerError, also when there is no such endpoint."""
    found = existing(session, name)
    owned = tuple(components(session, name))
    notes: list[str] = []
    lines: tuple[LogLine, ...] = ()
    measured: tuple[Metrics, ...] = ()
    try:
        lines = last_lines(session, name, owned, _TAIL_FAILED if found.status == "Failed" else _TAIL)
    except AccessError as error:
        notes.append(f"no log: {error}")
    try:
        if found.status in SERVING:
            measured = tuple(metrics.of_variant(session, name, each.name, now) for each in found.variants)
            measured += tuple(metrics.of_component(session, each.name, now) for each in owned)
    except AccessError as error:
        notes.append(f"no metrics: {error}")
    elapsed = max(now - found.since, timedelta())
    return Status(found, owned, elapsed, _phase(found, lines), lines, measured, tuple(notes))


def log_groups(endpoint: str, owned: tuple[Component, ...]) -> list[tuple[str, str]]:
    """Of an endpoint and its components, as ``Logs`` takes them."""
    groups = [("", group_of_endpoint(endpoint))]
    return groups + [(each.name, group_of_component(each.name)) for each in owned]


def last_lines(session: Session, endpoint: str, owned: tuple[Component, ...], count: int) -> tuple[LogLine, ...]:
    """Of the whole log, by time. Raises SageMakerError."""
    groups = log_groups(endpoint, owned)
    since = start_of_tail(session, [group for _, group in groups], count)
    return tuple(deque(Logs(session, groups, since).new(), maxlen=count))


def _phase(found: Description, lines: tuple[LogLine, ...]) -> str:
    """SageMaker tells no more than the status: a container that prints has a machine, its image and its data."""
    if found.status == "Creating":
        # Of an endpoint of the same name that there was before, the log is there, too.
        if any(line.at >= found.created for line in lines):
            return "the container is starting"
        return "waiting for an instance, its image and the model data"
    if found.status in ("Updating", "SystemUpdating"):
        return "the old instances serve until the new ones do"
    return "going back to what served before" if found.status == "RollingBack" else ""
