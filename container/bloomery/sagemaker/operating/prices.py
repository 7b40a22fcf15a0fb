"""What an hour of an instance costs: as the user says, or as AWS's price list does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bloomery.errors import SageMakerError
from bloomery.sagemaker.session import Session

HOW = "give it with --price-per-hour"
_CURRENCY = "USD"


@dataclass(frozen=True)
class Price:
    """USD per hour of one instance; None where it is not known. ``source``: who says so, or why nobody does."""

    per_hour: float | None
    source: str


@dataclass
class Prices:
    """Of one region, each looked up once. ``given``: the user's own, which holds for every type."""

    session: Session
    given: float | None = None
    _known: dict[str, Price] = field(default_factory=dict)

    def of(self, instance_type: str | None) -> Price:
        """None is a type that the endpoint does not say. Never raises for want of a price."""
        if self.given is not None:
            return Price(self.given, "as you say")
        if instance_type is None:
            return Price(None, f"the type of the instances is not known: {HOW}")
        if instance_type not in self._known:
            self._known[instance_type] = _looked_up(self.session, instance_type)
        return self._known[instance_type]


def _looked_up(session: Session, instance_type: str) -> Price:
    """On demand, of real-time hosting. The list names a type in ``instanceName``; what it is for stands in
    ``component`` or, in newer entries, in ``platoinstancetype``, so that is looked at here.
    """
    wanted = {"instanceName": instance_type, "regionCode": session.region}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
    try:
        products = [
            json.loads(each)
            for page in session.pages("pricing", "GetProducts", ServiceCode="AmazonSageMaker", Filters=filters)
            for each in page["PriceList"]
        ]
    except SageMakerError as error:
        return Price(None, f"the price list cannot be asked ({error}): {HOW}")
    found = [price for each in products if _hosts(each) for price in _on_demand(each)]
    if not found:
        return Price(None, f"the price list has no price of hosting on {instance_type} in {session.region}: {HOW}")
    return Price(max(found), "AWS's price list, on demand")


def _hosts(product: Mapping[str, Any]) -> bool:
    attributes = product["product"]["attributes"]
    return "hosting" in (attributes.get("component", "").lower(), attributes.get("platoinstancetype", "").lower())


def _on_demand(product: Mapping[str, Any]) -> Iterator[float]:
    """The prices per hour; several only where the list has several products that look alike."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            amount = float(dimension["pricePerUnit"].get(_CURRENCY, 0))
            if amount > 0 and dimension["unit"].lower() in ("hrs", "hour", "hours"):
                yield amount
