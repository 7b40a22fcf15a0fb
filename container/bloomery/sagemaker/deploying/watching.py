"""An endpoint on its way to InService: its status, and what its containers print."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bloomery.errors import AccessError, EndpointFailedError, SageMakerError
from bloomery.sagemaker.deploying.advice import advice, reported
from bloomery.sagemaker.deploying.events import Event, Note, Progress
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.operating.description import CHANGING
from bloomery.sagemaker.operating.logs import LogLine, Logs, group_of_component, group_of_endpoint
from bloomery.sagemaker.session import Session

TAIL = 60  # lines of a failed endpoint's log
_PREPARED = "a machine is found, image and model data are brought there"
_STARTS = "the container starts"
_LOADING = re.compile(r"\bloading: ([^,]{1,80}), \d+ s so far")
_PING = re.compile(r"GET /ping")  # every few seconds while it loads, in any server's log of requests
_CLOCKS = timedelta(seconds=5)  # by which they may differ
_PAUSE = {"aws": 10.0, "local": 0.3}  # seconds: an account's calls are counted, and shared with others
_LATE_LOG = {"aws": 12.0, "local": 1.2}  # until the last lines of a container that died are in CloudWatch


@dataclass(frozen=True)
class Kind:
    """Something that takes a while to be InService: how SageMaker calls it. ``group``: of its log."""

    word: str
    api: str
    group: Callable[[str], str]

    def described(self, session: Session, name: str) -> dict[str, Any] | None:
        """Its description, ``Status`` among it; None when it is gone."""
        found: dict[str, Any] | None = ask(session, "sagemaker", f"Describe{self.api}", **{f"{self.api}Name": name})
        return found and {**found, "Status": found[f"{self.api}Status"]}


ENDPOINT = Kind("endpoint", "Endpoint", group_of_endpoint)
COMPONENT = Kind("inference component", "InferenceComponent", group_of_component)


def watch(session: Session, name: str, kind: Kind = ENDPOINT) -> Iterator[Event]:
    """Status and lines as they come, until it is InService.

    Raises EndpointFailedError, which ends with what to do, and SageMakerError when there is none of that name.
    """
    found = _present(session, name, kind)
    log = _Log(session, kind.group(name), found["CreationTime"])
    tail: deque[str] = deque(maxlen=TAIL)
    phase = ""
    while True:
        for line in log.new():
            if isinstance(line, LogLine):
                phase = _phase_in(line.text) or phase or _STARTS
                tail.append(line.text)
            yield line
        status = found["Status"]
        elapsed = (datetime.now(found["CreationTime"].tzinfo) - found["CreationTime"]).total_seconds()
        yield Progress(max(0.0, elapsed), status, (phase or _PREPARED) if status == "Creating" else "")
        if status == "Failed":
            end = time.monotonic() + _LATE_LOG[session.target]
            while time.monotonic() < end and log.readable:
                time.sleep(_PAUSE[session.target] / 2)
                for line in log.new():
                    if isinstance(line, LogLine):
                        tail.append(line.text)
                    yield line
            raise failed(name, found.get("FailureReason", ""), tuple(tail), kind)
        if status not in CHANGING:
            return
        time.sleep(_PAUSE[session.target])
        found = _present(session, name, kind)


def failed(name: str, reason: str, log: tuple[str, ...], kind: Kind) -> EndpointFailedError:
    """The error to raise for what is Failed."""
    reason = reason or "SageMaker gives no reason"
    what = advice(reason, log)
    lines = [f"{kind.word} {name} failed: {reason}"]
    cause = reported(log, "what")
    lines += [f"the container says: {cause}"] if cause else []
    lines += [f"what to do: {what}"] if what else []
    return EndpointFailedError("\n".join(lines), reason, log)


def _present(session: Session, name: str, kind: Kind) -> dict[str, Any]:
    found = kind.described(session, name)
    if found is None or found["Status"] == "Deleting":
        raise SageMakerError(f"{kind.word} {name} is being deleted, or gone: somebody else removed it")
    return found


def _phase_in(line: str) -> str | None:
    """What our own server says every few seconds of a model that loads."""
    found = _LOADING.search(line)
    return found[1] if found else None


class _Log:
    """What its containers print, as far as it may be read. One of the same name may have had the log before."""

    def __init__(self, session: Session, group: str, since: datetime) -> None:
        self._logs = Logs(session, [("", group)], since - _CLOCKS)
        self.readable = True

    def new(self) -> Iterator[LogLine | Note]:
        """Lines, or once the word that there will be none."""
        if not self.readable:
            return
        try:
            yield from (line for line in self._logs.new() if not _PING.search(line.text))
        except AccessError as error:
            self.readable = False
            yield Note(f"the log cannot be shown: {error}")
