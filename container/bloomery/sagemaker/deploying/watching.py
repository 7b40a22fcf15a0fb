"""An endpoint on its way to InService: its status, and what its containers print."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bloomery.errors import EndpointFailedError, SageMakerError
from bloomery.sagemaker.deploying.advice import advice
from bloomery.sagemaker.deploying.container_log import ContainerLog
from bloomery.sagemaker.deploying.events import Event, LogLine, Progress
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.session import Session

TAIL = 60  # lines of a failed endpoint's log
_CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack")
_PAUSE = {"aws": 10.0, "local": 0.3}  # seconds: an account's calls are counted, and shared with others
_LATE_LOG = {"aws": 12.0, "local": 1.2}  # until the last lines of a container that died are in CloudWatch


def watch(session: Session, name: str) -> Iterator[Event]:
    """Status and lines as they come, until the endpoint is InService.

    Raises EndpointFailedError, which ends with what to do, and SageMakerError when there is no such endpoint.
    """
    found = _described(session, name)
    log = ContainerLog(session, name, found["CreationTime"])
    tail: deque[str] = deque(maxlen=TAIL)
    spoken = False
    while True:
        for line in log.new():
            spoken = True
            tail.append(line.text)
            yield line
        status = found["EndpointStatus"]
        elapsed = (datetime.now(found["CreationTime"].tzinfo) - found["CreationTime"]).total_seconds()
        yield Progress(max(0.0, elapsed), status, _phase(status, spoken))
        if status == "Failed":
            for line in _last(log, session.target):
                tail.append(line.text)
                yield line
            raise failed(name, found.get("FailureReason", ""), tuple(tail))
        if status not in _CHANGING:
            return
        time.sleep(_PAUSE[session.target])
        found = _described(session, name)


def failed(name: str, reason: str, log: tuple[str, ...]) -> EndpointFailedError:
    """The error to raise for a Failed endpoint."""
    reason = reason or "SageMaker gives no reason"
    what = advice(reason, log)
    lines = [f"endpoint {name} failed: {reason}"]
    lines += [f"what to do: {what}"] if what else []
    return EndpointFailedError("\n".join(lines), reason, log)


def gone(session: Session, name: str) -> None:
    """Return when there is no endpoint ``name`` any more."""
    while ask(session, "sagemaker", "DescribeEndpoint", EndpointName=name) is not None:
        time.sleep(_PAUSE[session.target])


def _described(session: Session, name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = ask(session, "sagemaker", "DescribeEndpoint", EndpointName=name)
    if found is None or found["EndpointStatus"] == "Deleting":
        raise SageMakerError(f"endpoint {name} is being deleted, or gone: somebody else removed it")
    return found


def _phase(status: str, spoken: bool) -> str:
    if status != "Creating":
        return ""
    return "the container starts" if spoken else "a machine is found, image and model data are brought there"


def _last(log: ContainerLog, target: str) -> Iterator[LogLine]:
    """What comes late."""
    end = time.monotonic() + _LATE_LOG[target]
    while time.monotonic() < end and log.readable:
        time.sleep(_PAUSE[target] / 2)
        yield from log.new()
