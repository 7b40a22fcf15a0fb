"""What an endpoint's containers print, as CloudWatch Logs gets it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bloomery.errors import AccessError, CallError
from bloomery.sagemaker.deploying.events import LogLine
from bloomery.sagemaker.session import Session

_LATE = timedelta(seconds=30)  # by which a line may come into the log after one that was printed later
_BEFORE = timedelta(seconds=5)  # clocks differ


class ContainerLog:
    """The lines since ``since``; an endpoint of the same name may have had the log before."""

    def __init__(self, session: Session, endpoint: str, since: datetime) -> None:
        self._session = session
        self._group = f"/aws/sagemaker/Endpoints/{endpoint}"
        self._from = since - _BEFORE
        self._seen: set[str] = set()
        self.readable = True  # until we are refused

    def new(self) -> list[LogLine]:
        """Lines that no earlier call gave, by time. None while there is no log, and when it may not be read."""
        if not self.readable:
            return []
        found: list[LogLine] = []
        try:
            for page in self._session.pages(
                "logs", "FilterLogEvents", logGroupName=self._group, startTime=int(self._from.timestamp() * 1000)
            ):
                for event in page["events"]:
                    if event["eventId"] not in self._seen:
                        self._seen.add(event["eventId"])
                        at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
                        found.append(LogLine(at, event.get("logStreamName", ""), event["message"].rstrip("\n")))
        except AccessError:
            self.readable = False
        except CallError as error:
            if error.code != "ResourceNotFoundException":
                raise
        if found:
            self._from = max(self._from, max(line.at for line in found) - _LATE)
        return sorted(found, key=lambda line: line.at)
