"""When an endpoint is to go: a tag, which ``bloomery deploy --ttl`` sets and ``bloomery delete --expired`` reads.

Nothing removes an endpoint by itself: run the latter from whatever runs things at times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bloomery.sagemaker.operating.description import tags
from bloomery.sagemaker.session import Session

EXPIRES, CREATED_BY = "bloomery:expires", "bloomery:created-by"


@dataclass(frozen=True)
class Expired:
    """An endpoint whose time has come."""

    name: str
    at: datetime


def expiry(tagged: Mapping[str, str]) -> datetime | None:
    """The moment that its tags name; None when they name none, or none that can be read."""
    try:
        found = datetime.fromisoformat(tagged.get(EXPIRES, ""))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def expired(session: Session, now: datetime) -> list[Expired]:
    """Every endpoint of the region that has expired, by name; not those that are being deleted.

    Raises SageMakerError.
    """
    found = []
    for page in session.pages("sagemaker", "ListEndpoints", SortBy="Name", SortOrder="Ascending"):
        for each in page["Endpoints"]:
            at = expiry(tags(session, each["EndpointArn"])) if each["EndpointStatus"] != "Deleting" else None
            if at is not None and at <= now:
                found.append(Expired(each["EndpointName"], at))
    return found
