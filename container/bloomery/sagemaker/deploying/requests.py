"""The requests that make an endpoint, and those that take them back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bloomery.sagemaker.deploying.deployment import VARIANT, Deployment
from bloomery.sagemaker.request import Request

TAKE_LONG = ("CreateEndpoint", "CreateInferenceComponent")  # to be made, and to be gone
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
    if wanted.subnets and wanted.security_groups:
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
        "InstanceType": instance_type,
        "InitialInstanceCount": wanted.instance_count,
    }
    if wanted.component is None:
        variant |= {"ModelName": wanted.name, **_timeouts(wanted)}
    elif wanted.component.max_instances is not None:
        limits = {"MinInstanceCount": 0, "MaxInstanceCount": wanted.component.max_instances}
        variant["ManagedInstanceScaling"] = {"Status": "ENABLED", **limits}
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
    if wanted.component is not None:
        parameters["ExecutionRoleArn"] = wanted.role
    if wanted.kms_key is not None:
        parameters["KmsKeyId"] = wanted.kms_key
    if wanted.async_output is not None:
        parameters["AsyncInferenceConfig"] = _async(wanted)
    return Request(_SERVICE, "CreateEndpointConfig", parameters)


def create_endpoint(wanted: Deployment, now: datetime) -> Request:
    """CreateEndpoint."""
    names = {"EndpointName": wanted.name, "EndpointConfigName": wanted.name}
    return Request(_SERVICE, "CreateEndpoint", {**names, "Tags": _tags(wanted, now)})


def create_component(wanted: Deployment, instance_type: str, now: datetime) -> Request:
    """CreateInferenceComponent, on an endpoint that is InService."""
    given = wanted.component
    assert given is not None
    parameters = {
        "InferenceComponentName": wanted.name,
        "EndpointName": wanted.name,
        "VariantName": VARIANT,
        "Specification": {
            "ModelName": wanted.name,
            "StartupParameters": _timeouts(wanted),
            "ComputeResourceRequirements": given.requirements(instance_type, wanted.tensor_parallel),
        },
        "RuntimeConfig": {"CopyCount": given.copies},
        "Tags": _tags(wanted, now),
    }
    return Request(_SERVICE, "CreateInferenceComponent", parameters)


def creation(wanted: Deployment, now: datetime) -> list[Request]:
    """All, in order, for the first instance type."""
    first = wanted.instance_types[0]
    made = [create_model(wanted, now), create_config(wanted, first, now), create_endpoint(wanted, now)]
    return made if wanted.component is None else [*made, create_component(wanted, first, now)]


def deletion(made: Request) -> Request:
    """What takes ``made`` back."""
    what = made.operation.removeprefix("Create")
    name = f"{what}Name"
    return Request(_SERVICE, f"Delete{what}", {name: made.parameters[name]})


def description(made: Request) -> Request:
    """What looks at ``made``."""
    what = made.operation.removeprefix("Create")
    name = f"{what}Name"
    return Request(_SERVICE, f"Describe{what}", {name: made.parameters[name]})


def _timeouts(wanted: Deployment) -> dict[str, int]:
    return {
        "ModelDataDownloadTimeoutInSeconds": wanted.download_timeout,
        "ContainerStartupHealthCheckTimeoutInSeconds": wanted.startup_timeout,
    }


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
