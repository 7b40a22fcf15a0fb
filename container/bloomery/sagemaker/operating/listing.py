"""The endpoints of a region, with their age, their instances and what they have cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from bloomery.sagemaker.operating.cost import Instances, per_hour
from bloomery.sagemaker.operating.description import Description, describe, tags
from bloomery.sagemaker.operating.expiry import CREATED_BY, expiry
from bloomery.sagemaker.operating.prices import Prices
from bloomery.sagemaker.session import Session

_FREE = ("Failed", "OutOfService")  # statuses in which there are no instances


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


def rows(session: Session, prices: Prices, now: datetime) -> Iterator[Row]:
    """Every endpoint of the region, the newest first. Raises SageMakerError."""
    for page in session.pages("sagemaker", "ListEndpoints", SortBy="CreationTime", SortOrder="Descending"):
        for each in page["Endpoints"]:
            found = describe(session, each["EndpointName"])
            if found is not None:  # else it has gone meanwhile
                tagged = tags(session, found.arn)
                yield _row(found, tagged, prices, now)


def instances_of(found: Description, prices: Prices) -> tuple[Instances, ...]:
    """What an endpoint runs on now, by variant; those that it is to have while it is Creating."""
    return tuple(
        Instances(each.instance_type, each.wanted if each.instances is None else each.instances, price)
        for each in found.variants
        for price in [prices.of(each.instance_type)]
    )


def _row(found: Description, tagged: dict[str, str], prices: Prices, now: datetime) -> Row:
    instances = instances_of(found, prices)
    age = max(now - found.created, timedelta())
    hourly = 0.0 if found.status in _FREE else per_hour(instances)
    return Row(
        name=found.name,
        status=found.status,
        created=found.created,
        age=age,
        instances=instances,
        cost_per_hour=hourly,
        # What failed has had instances for a while: for how long is not said.
        cost_so_far=None if hourly is None or found.status in _FREE else hourly * age.total_seconds() / 3600,
        expires=expiry(tagged),
        ours=CREATED_BY in tagged,
    )
