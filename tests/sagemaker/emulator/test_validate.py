from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import variant
from tests.support.emulator import Emulator

from bloomery.sagemaker import constraints
from bloomery.sagemaker.emulator.api import validate
from bloomery.sagemaker.emulator.api.aws_error import AwsError


def refusal(operation: str, parameters: object) -> str:
    with pytest.raises(AwsError) as caught:
        validate.check(operation, parameters)
    return str(caught.value)


def config(**changes: Any) -> dict[str, Any]:
    return {"EndpointConfigName": "c", "ProductionVariants": [variant("m", **changes)]}


def test_what_a_notebook_sends_passes() -> None:
    validate.check("CreateEndpointConfig", config(RoutingConfig={"RoutingStrategy": "RANDOM"}))


def test_members_that_are_null_are_not_there() -> None:
    given = config(ModelDataDownloadTimeoutInSeconds=None)
    given["ProductionVariants"][0]["ModelDataDownloadTimeoutInSeconds"] = None
    assert "Tags" not in validate.check("CreateEndpointConfig", {**given, "Tags": None})
    checked = validate.check("CreateEndpointConfig", given)
    assert "ModelDataDownloadTimeoutInSeconds" not in checked["ProductionVariants"][0]


def test_a_number_that_is_too_large_is_refused_in_awss_words() -> None:
    assert refusal("CreateEndpointConfig", config(ModelDataDownloadTimeoutInSeconds=9999)) == (
        "1 validation error detected: Value '9999' at 'productionVariants.1.member.modelDataDownloadTimeoutInSeconds' "
        "failed to satisfy constraint: Member must have value less than or equal to 3600"
    )


def test_several_violations_are_told_together() -> None:
    message = refusal("CreateModel", {"ModelName": "bad name!", "ExecutionRoleArn": "arn:aws:iam::1:role/short"})
    assert message.startswith("2 validation errors detected: Value 'bad name!' at 'modelName'")
    assert "Value 'arn:aws:iam::1:role/short' at 'executionRoleArn'" in message
    assert "; " in message


@pytest.mark.parametrize(
    ("operation", "parameters", "words"),
    [
        ("CreateModel", {}, "Value null at 'modelName' failed to satisfy constraint: Member must not be null"),
        ("CreateModel", {"ModelName": "n" * 64}, "Member must have length less than or equal to 63"),
        ("CreateEndpointConfig", config(InitialInstanceCount=0), "Member must have value greater than or equal to 1"),
        ("CreateEndpointConfig", config(InstanceType="ml.g99.huge"), "Member must satisfy enum value set: [ml."),
        ("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": []}, "greater than or equal to 1"),
        ("CreateEndpointConfig", config(RoutingConfig={"RoutingStrategy": "NOPE"}), "routingConfig.routingStrategy"),
        (
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"a-b": "1"}}},
            "Value '{a-b=1}' at 'primaryContainer.environment' failed to satisfy constraint: Map keys must satisfy",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"A": "x" * 1025}}},
            "Map value must satisfy constraint: [Member must have length less than or equal to 1024",
        ),
        (
            "CreateModel",
            {"ModelName": "m", "PrimaryContainer": {"Enviroment": {}}},
            "Unknown member 'Enviroment' at 'primaryContainer'",
        ),
        ("CreateModel", {"ModelName": 5}, "int at 'modelName' can not be converted to string"),
        ("CreateModel", {"ModelName": "m", "EnableNetworkIsolation": "yes"}, "can not be converted to boolean"),
        ("CreateEndpointConfig", config(InitialInstanceCount=True), "can not be converted to integer"),
        ("CreateModel", ["ModelName"], "not an object"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(operation: str, parameters: object, words: str) -> None:
    assert words in refusal(operation, parameters)


def test_patterns_that_only_java_understands_are_left_out() -> None:
    patterns = [shape.metadata.get("pattern") for shape in map(validate.service().shape_for, _shape_names())]
    unread = [pattern for pattern in patterns if pattern and constraints.compiled(pattern) is None]
    assert unread, "botocore's model has no such pattern any more: the exception can go"
    assert all(re.search(r"\\p\{|\(\?[<!=i]|\[", pattern) for pattern in unread)
    assert len(unread) < len([pattern for pattern in patterns if pattern]) / 10


def _shape_names() -> list[str]:
    return list(validate.service().shape_names)


def test_a_client_that_checks_nothing_is_checked_here(control: Emulator) -> None:
    sagemaker = control.client("sagemaker", parameter_validation=False)
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint_config(**config(ContainerStartupHealthCheckTimeoutInSeconds=10))
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert "Value '10' at 'productionVariants.1.member.containerStartupHealthCheckTimeoutInSeconds'" in error["Message"]


@pytest.mark.parametrize(
    ("target", "body", "status", "kind"),
    [
        ("SageMaker.CreateModel", b"{", 400, "SerializationException"),
        ("SageMaker.CreateModel", b"[1]", 400, "SerializationException"),
        ("SageMaker.CreateModel", b"\xff\xfe", 400, "SerializationException"),
        ("SageMaker.CreateModel", b'{"ModelName": "' + b"n" * 5_000_000, 400, "SerializationException"),
        ("SageMaker.CreateTrainingJob", b"{}", 400, "UnknownOperationException"),
        ("SageMaker.", b"{}", 400, "UnknownOperationException"),
        ("SageMaker.ListModels", b"", 200, None),
    ],
)
def test_any_bytes_get_an_answer(control: Emulator, target: str, body: bytes, status: int, kind: str | None) -> None:
    request = urllib.request.Request(control.url, body, {"X-Amz-Target": target}, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            found, document = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            found, document = error.code, json.load(error)
    assert (found, document.get("__type")) == (status, kind)
