from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.sagemaker.emulator.conftest import variant
from tests.support.emulator import Emulator


@pytest.fixture
def sagemaker(control: Emulator) -> Any:
    return control.client("sagemaker")


@pytest.fixture
def model(sagemaker: Any, name: str) -> str:
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "image"})
    return name


@pytest.mark.parametrize("instance_type", ["ml.p4d.24xlarge", "ml.g5.24xlarge", "ml.g6e.12xlarge", "ml.inf2.xlarge"])
def test_the_instance_types_of_language_models_are_known(sagemaker: Any, model: str, instance_type: str) -> None:
    given = variant(model, InstanceType=instance_type)
    created = sagemaker.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[given])
    described = sagemaker.describe_endpoint_config(EndpointConfigName=model)
    assert described["EndpointConfigArn"] == created["EndpointConfigArn"]
    assert described["ProductionVariants"] == [{**given, "InitialVariantWeight": 1.0}]


def test_what_else_is_configured_is_described(sagemaker: Any, model: str) -> None:
    asynchronous = {
        "OutputConfig": {"S3OutputPath": "s3://bucket/out", "S3FailurePath": "s3://bucket/failed"},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
    }
    given = variant(model, RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"})
    sagemaker.create_endpoint_config(
        EndpointConfigName=model, ProductionVariants=[given], AsyncInferenceConfig=asynchronous
    )
    described = sagemaker.describe_endpoint_config(EndpointConfigName=model)
    assert described["AsyncInferenceConfig"] == asynchronous
    assert described["ProductionVariants"][0]["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}


def test_a_model_that_is_not_there_is_named(sagemaker: Any, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant("absent")])
    arn = "arn:aws:sagemaker:us-west-2:123456789012:model/absent"
    assert caught.value.response["Error"]["Message"] == f'Could not find model "{arn}".'


def test_a_configuration_outlives_its_model_and_is_deleted_by_its_name(sagemaker: Any, model: str) -> None:
    sagemaker.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[variant(model)])
    sagemaker.delete_model(ModelName=model)
    sagemaker.describe_endpoint_config(EndpointConfigName=model)
    sagemaker.delete_endpoint_config(EndpointConfigName=model)
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.describe_endpoint_config(EndpointConfigName=model)
