from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import configured
from tests.support.emulator import Emulator, emulating

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.emulator.account.account_tables import QUOTA, AccountTables

TABLES = {
    "quotas": {"ml.p4d.24xlarge": 1},
    "prices": {"ml.g5.xlarge": {"us-west-2": 1.5, "us-east-1": 1.25}},
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    directory = tmp_path_factory.mktemp("tables")
    file = directory / "tables.json"
    file.write_text(json.dumps(TABLES))
    with emulating(directory / "state", "--tables", str(file), stand_in=True) as running:
        yield running


def test_quotas_of_endpoints_are_listed(emulator: Emulator) -> None:
    client = emulator.client("service-quotas")
    pages = client.get_paginator("list_service_quotas").paginate(
        ServiceCode="sagemaker", PaginationConfig={"PageSize": 20}
    )
    values = {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    assert values["ml.p4d.24xlarge for endpoint usage"] == 1
    assert values["ml.g5.xlarge for endpoint usage"] == QUOTA
    assert len(values) > 50
    quota = client.get_service_quota(ServiceCode="sagemaker", QuotaCode="L-09F79647")["Quota"]
    assert (quota["QuotaName"], quota["Value"]) == ("ml.p4d.24xlarge for endpoint usage", 1)
    default = client.get_aws_default_service_quota(ServiceCode="sagemaker", QuotaCode="L-09F79647")["Quota"]
    assert default["Value"] == QUOTA
    assert len(client.list_aws_default_service_quotas(ServiceCode="sagemaker", MaxResults=5)["Quotas"]) == 5
    for given in ({"ServiceCode": "sagemaker", "QuotaCode": "L-1"}, {"ServiceCode": "ec2", "QuotaCode": "L-1"}):
        with pytest.raises(client.exceptions.NoSuchResourceException):
            client.get_service_quota(**given)


def test_a_quota_holds(emulator: Emulator, name: str) -> None:
    sagemaker = emulator.client("sagemaker")
    for each in (name, f"{name}-2"):
        configured(sagemaker, each)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint(EndpointName=f"{name}-2", EndpointConfigName=f"{name}-2")
    assert caught.value.response["Error"]["Code"] == "ResourceLimitExceeded"
    assert (
        "The account-level service limit 'ml.p4d.24xlarge for endpoint usage' is 1 Instances, with current utilization "
        "of 1 Instances and a request delta of 1 Instances." in caught.value.response["Error"]["Message"]
    )
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    with pytest.raises(sagemaker.exceptions.ResourceLimitExceeded):
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
        )
    sagemaker.delete_endpoint(EndpointName=name)


def price(product: str) -> Any:
    """As notebooks read it."""
    (term,) = json.loads(product)["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    return float(dimension["pricePerUnit"]["USD"])


def match(**attributes: str) -> list[dict[str, str]]:
    return [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in attributes.items()]


def test_prices_are_found_by_their_attributes(emulator: Emulator) -> None:
    pricing = emulator.client("pricing")

    def found(**attributes: str) -> list[float]:
        answer = pricing.get_products(ServiceCode="AmazonSageMaker", Filters=match(**attributes))
        return [price(product) for product in answer["PriceList"]]

    assert found(instanceName="ml.g5.xlarge", regionCode="us-west-2") == [1.5]
    assert found(instanceName="ml.g5.xlarge", location="US East (N. Virginia)", component="Hosting") == [1.25]
    assert found(instanceName="ml.p4d.24xlarge", regionCode="us-east-1") == [37.688]
    assert found(instanceName="ml.p4d.24xlarge", regionCode="eu-west-1") == []
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonSageMaker", PaginationConfig={"PageSize": 7}
    )
    assert len([product for page in pages for product in page["PriceList"]]) == 21
    with pytest.raises(pricing.exceptions.NotFoundException):
        pricing.get_products(ServiceCode="AmazonEC2")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "Expecting property name"),
        ("[]", 'an object with "quotas" and "prices"'),
        ('{"limits": {}}', 'an object with "quotas" and "prices"'),
        ('{"quotas": []}', "quotas is an object"),
        ('{"quotas": {"ml.g5.xlarge": -1}}', "quotas.ml.g5.xlarge is a number from 0 on, not -1"),
        ('{"prices": {"ml.g5.xlarge": 1.5}}', "ml.g5.xlarge is an object, not 1.5"),
        ('{"prices": {"ml.g5.xlarge": {"us-east-1": "1"}}}', "prices.ml.g5.xlarge.us-east-1 is a number"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "tables.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        AccountTables.read(file)
    with pytest.raises(ConfigurationError, match="No such file"):
        AccountTables.read(tmp_path / "absent.json")
