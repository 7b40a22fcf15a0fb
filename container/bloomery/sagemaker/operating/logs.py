"""What the containers of an endpoint print, as CloudWatch Logs has it: all streams, by time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bloomery.errors import CallError
from bloomery.sagemaker.operating.absence import is_absence
from bloomery.sagemaker.session import Session

_LATE = timedelta(seconds=30)  # by which a line may come into the log after one that was printed later
_STREAMS = 50  # of a group that are looked at for their last lines: those that were written to last


@dataclass(frozen=True)
class LogLine:
    """``stream``: variant/instance; for a component its name and a colon come first."""

    at: datetime
    stream: str
    text: str


def group_of_endpoint(endpoint: str) -> str:
    """Where its containers print; that of a deleted endpoint stays."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def group_of_component(component: str) -> str:
    """Where its copies print."""
    return f"/aws/sagemaker/InferenceComponents/{component}"


class Logs:
    """Reads several log groups, in turns. ``groups``: the word before the streams' names ("" for none), and the name.
    ``since``: lines before it are not there.
    """

    def __init__(self, session: Session, groups: Iterable[tuple[str, str]], since: datetime) -> None:
        self._session = session
        self._groups = {name: prefix for prefix, name in groups}
        self._from = dict.fromkeys(self._groups, since)
        self._seen: dict[str, dict[str, datetime]] = {name: {} for name in self._groups}

    def new(self) -> Iterator[LogLine]:
        """Lines that no earlier call gave, by time; none while there is no log. Raises SageMakerError.

        A line that comes into the log too late for its place is given with the next ones.
        """
        found = [line for group, prefix in self._groups.items() for line in self._of(group, prefix)]
        yield from sorted(found, key=lambda line: line.at)

    def _of(self, group: str, prefix: str) -> list[LogLine]:
        seen, found, start = self._seen[group], [], self._from[group]
        for event in _events(self._session, group, start):
            at = _moment(event["timestamp"])
            if event["eventId"] not in seen:
                seen[event["eventId"]] = at
                stream = event.get("logStreamName", "")
                found.append(LogLine(at, f"{prefix}:{stream}" if prefix else stream, event["message"].rstrip("\n")))
        if found:
            start = self._from[group] = max(start, max(line.at for line in found) - _LATE)
            self._seen[group] = {event: at for event, at in seen.items() if at >= start - _LATE}
        return found


def start_of_tail(session: Session, groups: Iterable[str], lines: int) -> datetime:
    """A moment since which there have been at least ``lines`` lines, if there are as many at all: so that the end of a
    long log is read without its beginning. Raises SageMakerError.
    """
    moments = [moment for group in groups for moment in _last_moments(session, group, lines)]
    moments.sort(reverse=True)
    return min(moments[:lines], default=datetime.fromtimestamp(0, UTC))


def _events(session: Session, group: str, start: datetime) -> Iterator[dict[str, Any]]:
    since = int(start.timestamp() * 1000)
    try:
        for page in session.pages("logs", "FilterLogEvents", logGroupName=group, startTime=since):
            yield from page["events"]
    except CallError as error:
        if not is_absence(error):
            raise


def _last_moments(session: Session, group: str, lines: int) -> Iterator[datetime]:
    """When the last lines of each stream were printed."""
    given = {"logGroupName": group}
    try:
        found = session.call(
            "logs", "DescribeLogStreams", **given, orderBy="LastEventTime", descending=True, limit=_STREAMS
        )
        for stream in found["logStreams"]:
            name = stream["logStreamName"]
            events = session.call(
                "logs", "GetLogEvents", **given, logStreamName=name, limit=min(lines, 10_000), startFromHead=False
            )
            yield from (_moment(event["timestamp"]) for event in events["events"])
    except CallError as error:
        if not is_absence(error):
            raise


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
