"""The endpoints of a region, with their age, their instances and what they have cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bloomery.sagemaker.operating.cost import Instances, per_hour
from bloomery.sagemaker.operating.description import Description, describe, tags
from bloomery.sagemaker.operating.expiry import CREATED_BY, expiry
from bloomery.sagemaker.operating.prices import Price, Prices
from bloomery.sagemaker.session import Session

_BY_USE = Price(None, "a serverless variant is paid by the milliseconds of its requests, not by the hour")
_NONE = ("Failed", "OutOfService")  # statuses in which there are no instances


@dataclass(frozen=True)
class Row:
    """An endpoint. ``ours``: bloomery made it. ``cost_per_hour``, ``cost_so_far`` in USD, as if there had always been
    as many instances as now; None: unknown.
    """

    name: str
    status: str
    created: datetime
    age: timedelta
    instances: tuple[Instances, ...]
    cost_per_hour: float | None
    cost_so_far: float | None
    expires: datetime | None
    ours: bool


@dataclass(frozen=True)
class Listing:
    """``others``: how many endpoints of the region are not among ``rows``."""

    rows: tuple[Row, ...]
    others: int


def listing(session: Session, prices: Prices, now: datetime, *, every: bool) -> Listing:
    """The endpoints of the region, the newest first: those that bloomery made, or all. Raises SageMakerError."""
    rows, others = [], 0
    for page in session.pages("sagemaker", "ListEndpoints", SortBy="CreationTime", SortOrder="Descending"):
        for each in page["Endpoints"]:
            tagged = tags(session, each["EndpointArn"])
            if not (every or CREATED_BY in tagged):
                others += 1
            elif (found := describe(session, each["EndpointName"])) is not None:  # else it has gone meanwhile
                rows.append(_row(found, tagged, prices, now))
    return Listing(tuple(rows), others)


def instances_of(found: Description, prices: Prices) -> tuple[Instances, ...]:
    """What an endpoint runs on now, by variant: those that it is to have while it is Creating, none when it failed."""
    found_none = found.status in _NONE
    instances = []
    for each in found.variants:
        if each.serverless:
            instances.append(Instances("serverless", 1, _BY_USE))
            continue
        for kind, count in each.pools.items() if each.pools else ((each.instance_type, each.there),):
            instances.append(Instances(kind, 0 if found_none else count, prices.of(kind)))
    return tuple(instances)


def _row(found: Description, tagged: dict[str, str], prices: Prices, now: datetime) -> Row:
    instances = instances_of(found, prices)
    age = max(now - found.created, timedelta())
    hourly = per_hour(instances)
    return Row(
        name=found.name,
        status=found.status,
        created=found.created,
        age=age,
        instances=instances,
        cost_per_hour=hourly,
        # What has no instances now has had some: for how long is not said.
        cost_so_far=hourly * age.total_seconds() / 3600 if hourly else None,
        expires=expiry(tagged),
        ours=CREATED_BY in tagged,
    )
