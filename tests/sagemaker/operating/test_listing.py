"""What there is, how old it is, what it costs and when it is to go."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.sagemaker.operating.conftest import PRICE, TYPE, endpoint, in_status, model
from tests.support.emulator import REGION

from bloomery.errors import AccessError, ScalingRefusedError
from bloomery.sagemaker.operating.autoscaling import planned
from bloomery.sagemaker.operating.description import describe, existing, models_of
from bloomery.sagemaker.operating.expiry import CREATED_BY, EXPIRES, expired, expiry
from bloomery.sagemaker.operating.listing import Row, instances_of, listing
from bloomery.sagemaker.operating.prices import Price, Prices
from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.operating.scaling_requests import Bounds
from bloomery.sagemaker.session import Session

OURS = {CREATED_BY: "bloomery 0"}


def row(session: Session, name: str, now: datetime, given: float | None = None) -> Row:
    rows = listing(session, Prices(session, given), now, every=True).rows
    (found,) = [each for each in rows if each.name == name]
    return found


def test_an_endpoint_with_its_age_and_its_cost(session: Session, sagemaker: Any, name: str) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=4)
    tags = {**OURS, EXPIRES: soon.isoformat()}
    endpoint(sagemaker, name, tags=tags, variant={"InitialInstanceCount": 2})
    created = existing(session, name).created
    found = row(session, name, created + timedelta(minutes=90))
    assert (found.status, found.ours, found.expires) == ("InService", True, soon)
    assert found.age == timedelta(minutes=90)
    assert [(each.instance_type, each.count, each.price.per_hour) for each in found.instances] == [(TYPE, 2, PRICE)]
    assert found.cost_per_hour == 2 * PRICE
    assert found.cost_so_far == pytest.approx(3 * PRICE)
    assert row(session, name, created, given=1.0).cost_per_hour == 2.0
    remove(session, name)


def test_a_failed_endpoint_costs_nothing_more(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name, environment={"DIE_AT_START": "3"}, wait=False)
    in_status(sagemaker, name, "Failed")
    found = row(session, name, datetime.now(UTC))
    assert (found.status, found.ours, found.expires) == ("Failed", False, None)
    assert (found.cost_per_hour, found.cost_so_far) == (0.0, None)
    remove(session, name)


def test_more_endpoints_than_a_page_holds(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    for number in range(11):
        sagemaker.create_endpoint(EndpointName=f"{name}-{number}", EndpointConfigName=name)
    rows = listing(session, Prices(session), datetime.now(UTC), every=True).rows
    found = [each.name for each in rows if each.name.startswith(name)]
    assert sorted(found) == sorted([name, *(f"{name}-{number}" for number in range(11))])
    for each in found:
        sagemaker.delete_endpoint(EndpointName=each)


def test_an_unknown_price_is_not_guessed(session: Session) -> None:
    price = Prices(session).of("ml.p5.48xlarge")  # the emulator has one of another region
    assert price == Price(
        None, f"the price list has no price of hosting on ml.p5.48xlarge in {REGION}: give it with --price-per-hour"
    )
    assert Prices(session).of(None).per_hour is None
    assert Prices(session, 3.5).of("ml.p5.48xlarge") == Price(3.5, "as you say")


class PriceList:
    """A session with a price list as AWS publishes it, which has more than the emulator's."""

    region = "us-east-1"

    def __init__(self, *products: dict[str, Any]) -> None:
        self.products, self.asked = products, 0

    def pages(self, service: str, operation: str, **parameters: Any) -> Any:
        self.asked += 1
        yield {"PriceList": [json.dumps(each) for each in self.products[:1]]}
        yield {"PriceList": [json.dumps(each) for each in self.products[1:]]}


def product(price: str, unit: str = "Hrs", **attributes: str) -> dict[str, Any]:
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    return {"product": {"attributes": attributes}, "terms": {"OnDemand": {"t": {"priceDimensions": {"d": dimension}}}}}


def test_hosting_is_found_among_what_else_an_instance_is_for() -> None:
    session: Any = PriceList(
        product("9.0", component="Training"),
        product("1.0", platoinstancetype="Notebook"),
        product("0.0", component="Hosting"),
        product("5.0", unit="GB-Mo", component="Hosting"),
        product("7.09", platoinstancetype="Hosting"),
    )
    prices = Prices(session)
    assert prices.of("ml.g5.12xlarge").per_hour == 7.09
    assert prices.of("ml.g5.12xlarge").source == "AWS's price list, on demand"
    assert session.asked == 1


def test_a_price_list_that_may_not_be_asked_is_no_error() -> None:
    class Refusing(PriceList):
        def pages(self, service: str, operation: str, **parameters: Any) -> Any:
            raise AccessError("pricing GetProducts: no")

    session: Any = Refusing()
    price = Prices(session).of("ml.g5.12xlarge")
    assert price.per_hour is None
    assert price.source == "the price list cannot be asked (pricing GetProducts: no): give it with --price-per-hour"


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("2026-11-24T15:00:00Z", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("2026-11-24T16:00:00+01:00", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("2026-11-24T15:00:00", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("tomorrow", None),
        (None, None),
    ],
)
def test_the_tag_of_an_expiry(tag: str | None, expected: datetime | None) -> None:
    assert expiry({} if tag is None else {EXPIRES: tag}) == expected


def test_only_what_has_expired_is_found(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, f"{name}-new", tags={EXPIRES: "2999-01-01T00:00:00Z"})
    endpoint(sagemaker, f"{name}-old", tags={EXPIRES: "2026-11-24T15:00:00Z"})
    endpoint(sagemaker, f"{name}-forever")
    now = datetime(2026, 11, 24, 15, tzinfo=UTC)
    assert [each.name for each in expired(session, now)] == [f"{name}-old"]
    assert expired(session, now - timedelta(seconds=1)) == []
    for each in ("new", "old", "forever"):
        remove(session, f"{name}-{each}")


def test_an_endpoint_whose_configuration_is_gone_can_be_described(session: Session, sagemaker: Any, name: str) -> None:
    endpoint(sagemaker, name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    found = describe(session, name)
    assert found is not None
    assert [(each.name, each.there, each.instance_type) for each in found.variants] == [("V", 1, None)]
    assert not found.hosts_components
    assert row(session, name, datetime.now(UTC)).cost_per_hour is None
    remove(session, name)


class Pools:
    """A session with an endpoint of two types of instances, which the emulator does not have."""

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        if operation == "DescribeEndpoint":
            there = [
                {"InstanceType": "ml.g5.xlarge", "CurrentInstanceCount": 2},
                {"InstanceType": "ml.g6.xlarge", "CurrentInstanceCount": 1},
            ]
            variant = {"VariantName": "V", "CurrentInstanceCount": 3, "DesiredInstanceCount": 3, "InstancePools": there}
            now = datetime.now(UTC)
            return {
                "EndpointName": "e",
                "EndpointArn": "arn",
                "EndpointStatus": "InService",
                "EndpointConfigName": "c",
                "CreationTime": now,
                "LastModifiedTime": now,
                "ProductionVariants": [variant],
            }
        pools = [
            {"InstanceType": "ml.g5.xlarge", "Priority": 1},
            {"InstanceType": "ml.g6.xlarge", "Priority": 2, "ModelNameOverride": "for-g6"},
        ]
        return {"ProductionVariants": [{"VariantName": "V", "ModelName": "m", "InstancePools": pools}]}


def test_instances_of_several_types_are_counted_apart() -> None:
    session: Any = Pools()
    found = existing(session, "e")
    assert not found.hosts_components
    instances = instances_of(found, Prices(session, 1.0))
    assert [(each.instance_type, each.count) for each in instances] == [("ml.g5.xlarge", 2), ("ml.g6.xlarge", 1)]
    assert models_of(session.call("", "")["ProductionVariants"][0]) == ["m", "for-g6"]


def test_a_serverless_endpoint_has_no_price_per_hour(session: Session, sagemaker: Any, name: str) -> None:
    model(sagemaker, name)
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
    variant = {"VariantName": "V", "ModelName": name, "ServerlessConfig": serverless}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    in_status(sagemaker, name, "InService")
    found = row(session, name, datetime.now(UTC), given=5.0)
    assert [(each.instance_type, each.price.per_hour) for each in found.instances] == [("serverless", None)]
    assert found.cost_per_hour is None
    with pytest.raises(ScalingRefusedError, match="is serverless and scales by itself"):
        planned(session, name, Bounds(1, 2, 1.0))
    remove(session, name)
