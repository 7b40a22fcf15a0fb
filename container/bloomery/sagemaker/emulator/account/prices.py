"""The Price List service: what an hour of real-time hosting costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bloomery.sagemaker.emulator.account.account_tables import AccountTables
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call
from bloomery.sagemaker.emulator.api.json_api import Operation
from bloomery.sagemaker.emulator.api.offsets import page
from bloomery.sagemaker.instances import INSTANCE_TYPES

PREFIX, SERVICE = "AWSPriceListService.", "pricing"
_OFFER = "AmazonSageMaker"
_PAGE = 100
_LOCATIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
    "eu-central-1": "EU (Frankfurt)",
}


class Prices:
    """The operations."""

    def __init__(self, tables: AccountTables) -> None:
        self._tables = tables

    def operations(self) -> Mapping[str, Operation]:
        """By name."""
        return {"GetProducts": self.products}

    async def products(self, call: Call) -> dict[str, Any]:
        """GetProducts of AmazonSageMaker: hosting alone. Each product is a text of JSON, as AWS has it."""
        given = call.parameters
        if given["ServiceCode"] != _OFFER:
            raise AwsError(words.NO_PRICES_OF.format(service=given["ServiceCode"]), "NotFoundException")
        found = [
            _product(name, region, price)
            for name, by_region in sorted(self._tables.prices.items())
            for region, price in sorted(by_region.items())
        ]
        wanted = [each for each in found if all(_fits(each, one) for one in given.get("Filters") or ())]
        shown, more = page(wanted, given.get("MaxResults", _PAGE), given.get("NextToken"))
        return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(each) for each in shown], **more}


def _fits(product: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """A filter compares one attribute, without regard to case, as AWS does."""
    attributes = {**product["product"]["attributes"], "productFamily": product["product"]["productFamily"]}
    has, value = str(attributes.get(wanted["Field"], "")).lower(), wanted["Value"].lower()
    several = [each.strip() for each in value.split(",")]
    return {
        "TERM_MATCH": has == value,
        "EQUALS": has == value,
        "CONTAINS": value in has,
        "ANY_OF": has in several,
        "NONE_OF": has not in several,
    }[wanted["Type"]]


def _product(instance_type: str, region: str, price: float) -> dict[str, Any]:
    has = INSTANCE_TYPES.get(instance_type)
    sku = f"{instance_type}-{region}-Hosting"
    attributes = {
        "servicecode": _OFFER,
        "servicename": "Amazon SageMaker",
        "regionCode": region,
        "location": _LOCATIONS.get(region, region),
        "locationType": "AWS Region",
        "instanceName": instance_type,
        "instanceType": f"{instance_type}-Hosting",
        "component": "Hosting",
        "platoinstancename": instance_type.removeprefix("ml."),
        "usagetype": f"Host:{instance_type}",
        "operation": "RunInstance",
    }
    if has is not None:
        attributes |= {
            "vCpu": str(has.vcpus),
            "memory": f"{has.memory // 1024} GiB",
            "gpu": str(has.accelerators),
        }
    dimension = {
        "unit": "Hrs",
        "description": f"${price:g} per Hosting {instance_type} hour",
        "pricePerUnit": {"USD": f"{price:.10f}"},
        "beginRange": "0",
        "endRange": "Inf",
        "rateCode": f"{sku}.OnDemand.Hrs",
        "appliesTo": [],
    }
    term = {"sku": sku, "priceDimensions": {dimension["rateCode"]: dimension}, "termAttributes": {}}
    return {
        "product": {"productFamily": "ML Instance", "attributes": attributes, "sku": sku},
        "serviceCode": _OFFER,
        "terms": {"OnDemand": {f"{sku}.OnDemand": term}},
    }
