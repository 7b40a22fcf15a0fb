"""The three requests that make an endpoint, and those that take them back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bloomery.sagemaker.deploying.deployment import VARIANT, Deployment
from bloomery.sagemaker.request import Request

_SERVICE = "sagemaker"


def create_model(wanted: Deployment, now: datetime) -> Request:
    """CreateModel. ``wanted`` is resolved: its image, role and model data are what the API takes."""
    container: dict[str, Any] = {"Image": wanted.image}
    if wanted.is_prefix:
        source = {"S3Uri": wanted.model_data, "S3DataType": "S3Prefix", "CompressionType": "None"}
        container["ModelDataSource"] = {"S3DataSource": source}
    elif wanted.model_data is not None:
        container["ModelDataUrl"] = wanted.model_data
    if wanted.variables:
        container["Environment"] = wanted.variables
    parameters: dict[str, Any] = {
        "ModelName": wanted.name,
        "ExecutionRoleArn": wanted.role,
        "PrimaryContainer": container,
        "Tags": _tags(wanted, now),
    }
    if wanted.subnets or wanted.security_groups:
        parameters["VpcConfig"] = {
            "SecurityGroupIds": list(wanted.security_groups),
            "Subnets": list(wanted.subnets),
        }
    if wanted.network_isolation:
        parameters["EnableNetworkIsolation"] = True
    return Request(_SERVICE, "CreateModel", parameters)


def create_config(wanted: Deployment, instance_type: str, now: datetime) -> Request:
    """CreateEndpointConfig, for one of the instance types."""
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "ModelName": wanted.name,
        "InstanceType": instance_type,
        "InitialInstanceCount": wanted.instance_count,
        "ModelDataDownloadTimeoutInSeconds": wanted.download_timeout,
        "ContainerStartupHealthCheckTimeoutInSeconds": wanted.startup_timeout,
    }
    if wanted.volume is not None:
        variant["VolumeSizeInGB"] = wanted.volume
    if wanted.routing is not None:
        variant["RoutingConfig"] = {"RoutingStrategy": wanted.routing}
    if wanted.ami_version is not None:
        variant["InferenceAmiVersion"] = wanted.ami_version
    parameters: dict[str, Any] = {
        "EndpointConfigName": wanted.name,
        "ProductionVariants": [variant],
        "Tags": _tags(wanted, now),
    }
    if wanted.kms_key is not None:
        parameters["KmsKeyId"] = wanted.kms_key
    if wanted.async_output is not None:
        parameters["AsyncInferenceConfig"] = _async(wanted)
    return Request(_SERVICE, "CreateEndpointConfig", parameters)


def create_endpoint(wanted: Deployment, now: datetime) -> Request:
    """CreateEndpoint."""
    names = {"EndpointName": wanted.name, "EndpointConfigName": wanted.name}
    return Request(_SERVICE, "CreateEndpoint", {**names, "Tags": _tags(wanted, now)})


def creation(wanted: Deployment, now: datetime) -> list[Request]:
    """All three, in order, for the first instance type."""
    return [
        create_model(wanted, now),
        create_config(wanted, wanted.instance_types[0], now),
        create_endpoint(wanted, now),
    ]


def deletion(made: Request) -> Request:
    """What takes ``made`` back."""
    what = made.operation.removeprefix("Create")
    name = f"{what}Name"
    return Request(_SERVICE, f"Delete{what}", {name: made.parameters[name]})


def _tags(wanted: Deployment, now: datetime) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in wanted.all_tags(now).items()]


def _async(wanted: Deployment) -> dict[str, Any]:
    given = wanted.async_output
    assert given is not None
    output: dict[str, Any] = {"S3OutputPath": given.output}
    if given.failure is not None:
        output["S3FailurePath"] = given.failure
    if wanted.kms_key is not None:
        output["KmsKeyId"] = wanted.kms_key
    client = {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": given.concurrent}} if given.concurrent else {}
    return {"OutputConfig": output, **client}
