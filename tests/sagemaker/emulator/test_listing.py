from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import configured
from tests.support.emulator import Emulator, until

from bloomery.sagemaker.emulator.api import listing
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.store import Kind, Record


def record(name: str, created: float, status: str = "", modified: float | None = None) -> Record:
    return Record(Kind.ENDPOINT, name, f"arn:{name}", created, modified or created, status, {})


RECORDS = [record("Beta", 2.0, "Failed"), record("alpha", 1.0, "InService", 9.0), record("gamma", 3.0, "InService")]


def names(parameters: dict[str, Any], records: list[Record] = RECORDS) -> list[str]:
    shown, _ = listing.page(records, parameters)
    return [each.name for each in shown]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ["gamma", "Beta", "alpha"]),
        ({"SortOrder": "Ascending"}, ["alpha", "Beta", "gamma"]),
        ({"SortBy": "Name", "SortOrder": "Ascending"}, ["alpha", "Beta", "gamma"]),
        ({"SortBy": "Name", "SortOrder": "Descending"}, ["gamma", "Beta", "alpha"]),
        ({"SortBy": "Status", "SortOrder": "Ascending"}, ["Beta", "alpha", "gamma"]),
        ({"NameContains": "BET"}, ["Beta"]),
        ({"StatusEquals": "InService"}, ["gamma", "alpha"]),
        ({"CreationTimeAfter": 2.0}, ["gamma", "Beta"]),
        ({"CreationTimeBefore": 2.0}, ["alpha"]),
        ({"LastModifiedTimeAfter": 5.0}, ["alpha"]),
        ({"LastModifiedTimeBefore": 3.0}, ["Beta"]),
        ({"MaxResults": 2}, ["gamma", "Beta"]),
    ],
)
def test_filters_and_order(parameters: dict[str, Any], expected: list[str]) -> None:
    assert names(parameters) == expected


def test_pages_go_on_where_the_last_ended_whatever_came_or_went() -> None:
    shown, more = listing.page(RECORDS, {"MaxResults": 2})
    changed = [record("delta", 4.0), *(each for each in RECORDS if each not in shown)]
    assert names({"MaxResults": 2, **more}, changed) == ["alpha"]


def test_records_of_one_moment_are_each_listed_once() -> None:
    records = [record(f"n{number}", 1.0) for number in range(7)]
    found, more = [], {}
    while True:
        shown, more = listing.page(records, {"MaxResults": 3, **more})
        found += [each.name for each in shown]
        if not more:
            break
    assert sorted(found) == sorted(each.name for each in records)


@pytest.mark.parametrize("token", ["", "nonsense", "bnVsbA==", "WzFd", "WyJhIiwgImIiXQ=="])
def test_a_token_of_another_is_refused(token: str) -> None:
    with pytest.raises(AwsError, match="Invalid NextToken"):
        listing.page(RECORDS, {"NextToken": token})


def test_a_paginator_finds_everything(control: Emulator, name: str) -> None:
    sagemaker = control.client("sagemaker")
    made = [f"{name}-{number:02}" for number in range(23)]
    for each in made:
        sagemaker.create_model(ModelName=each, PrimaryContainer={"Image": "image"})
    pages = list(sagemaker.get_paginator("list_models").paginate(NameContains=name, SortOrder="Ascending"))
    assert [len(page["Models"]) for page in pages] == [10, 10, 3]
    assert [model["ModelName"] for page in pages for model in page["Models"]] == made


def test_endpoints_and_configurations_are_listed(control: Emulator, name: str) -> None:
    sagemaker = control.client("sagemaker")
    configured(sagemaker, name, FAILURE="on purpose")
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    (config,) = sagemaker.list_endpoint_configs(NameContains=name)["EndpointConfigs"]
    assert config["EndpointConfigArn"].endswith(f":endpoint-config/{name}")

    def failed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = sagemaker.list_endpoints(NameContains=name, StatusEquals="Failed")["Endpoints"]
        return found

    (endpoint,) = until(failed, "the endpoint is listed as Failed")
    assert (endpoint["EndpointName"], endpoint["EndpointStatus"]) == (name, "Failed")
    assert sagemaker.list_endpoints(NameContains=name, StatusEquals="InService")["Endpoints"] == []


def test_a_foreign_token_is_refused_over_the_wire(control: Emulator) -> None:
    with pytest.raises(ClientError, match="Invalid NextToken"):
        control.client("sagemaker").list_models(NextToken="nonsense")
