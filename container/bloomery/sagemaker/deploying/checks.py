"""What can be known to be wrong without asking anybody."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bloomery.sagemaker.constraints import Constraint, broken
from bloomery.sagemaker.deploying import requests
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.finding import Finding, error, remark
from bloomery.sagemaker.instances import INSTANCE_TYPES, has_local_storage

_ENVIRONMENT = 32 * 1024  # bytes of all names and values
_VARIABLES = 100
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATHS = ("/", "./", "../", "~", "file:")
# What a user calls the fields of the API.
_WORDS = {
    "ModelName": "name",
    "EndpointName": "name",
    "EndpointConfigName": "name",
    "Image": "image",
    "ExecutionRoleArn": "role",
    "ModelDataUrl": "model data",
    "S3Uri": "model data",
    "Environment": "environment",
    "InstanceType": "instance type",
    "InitialInstanceCount": "instance count",
    "VolumeSizeInGB": "volume",
    "ModelDataDownloadTimeoutInSeconds": "download timeout",
    "ContainerStartupHealthCheckTimeoutInSeconds": "startup timeout",
    "RoutingStrategy": "routing",
    "InferenceAmiVersion": "AMI version",
    "InferenceComponentName": "name",
    "MinMemoryRequiredInMb": "component's memory",
    "NumberOfAcceleratorDevicesRequired": "component's accelerators",
    "MaxInstanceCount": "component's instances",
    "S3OutputPath": "asynchronous output",
    "S3FailurePath": "asynchronous failure",
    "MaxConcurrentInvocationsPerInstance": "asynchronous concurrency",
    "SecurityGroupIds": "security groups",
    "Subnets": "subnets",
    "KmsKeyId": "KMS key",
    "Tags": "tags",
    "Key": "tags",
    "Value": "tags",
}
_PATTERNS = {
    "name": "letters, digits and hyphens, none of them at an end (no underscore, no dot)",
    "role": "arn:aws:iam::ACCOUNT:role/NAME",
    "image": "no blanks",
    "model data": "s3://bucket/key",
    "asynchronous output": "s3://bucket/prefix/",
    "asynchronous failure": "s3://bucket/prefix/",
}
# AWS's pattern for them allows one letter between the slashes, which it cannot mean.
_MISTAKEN = ("S3OutputPath", "S3FailurePath")


def check(wanted: Deployment) -> list[Finding]:
    """Of a resolved deployment: everything that botocore's client lets through and SageMaker refuses, or fails at."""
    found = [*_shape(wanted), *_types(wanted), *_data(wanted), *_environment(wanted), *_network(wanted)]
    found += _component(wanted)
    return list(dict.fromkeys(found))


def _types(wanted: Deployment) -> Iterator[Finding]:
    if not wanted.instance_types:
        yield error("instance type", "none is given: --instance-type ml.g5.2xlarge, for instance")
    degree = str(
        wanted.variables.get("TENSOR_PARALLEL_DEGREE", wanted.variables.get("OPTION_TENSOR_PARALLEL_DEGREE", ""))
    )
    for each in wanted.instance_types:
        if wanted.volume is not None and has_local_storage(each):
            yield error("volume", f"{each} has disks of its own, and SageMaker refuses a volume with it: leave it out")
        known = INSTANCE_TYPES.get(each)
        if known is None or not degree.isdigit():
            continue
        if known.accelerators and int(degree) > known.accelerators:
            yield error(
                "tensor parallel",
                f"{degree} ranks do not fit: {each} has {known.accelerators} accelerators ({known.accelerator}); "
                f"give {known.accelerators} or less, or a larger type",
            )
        if not known.accelerators:
            yield remark("instance type", f"{each} has no accelerator: {degree} ranks share its {known.vcpus} vCPUs")
    if degree not in ("", "max", "auto") and not (degree.isdigit() and int(degree) > 0):
        yield error("tensor parallel", f"{degree!r} is no number of ranks")


def _component(wanted: Deployment) -> Iterator[Finding]:
    given = wanted.component
    if given is None:
        return
    if wanted.async_output is not None:
        yield error("component", "an endpoint of inference components cannot be asynchronous: give one of the two")
    if given.copies < 1:
        yield error(
            "component", f"{given.copies} copies: it begins with 1 or more; `bloomery autoscale` lets it go to 0"
        )
    if given.max_instances is not None and given.max_instances < wanted.instance_count:
        yield error("component", f"at most {given.max_instances} instances, but {wanted.instance_count} to begin with")
    for each in wanted.instance_types:
        for lack in given.lacking(each, wanted.tensor_parallel):
            yield error("component", f"{lack}: take a larger type, or ask for less")


def _data(wanted: Deployment) -> Iterator[Finding]:
    data = wanted.model_data
    if data is None:
        if not any(name in wanted.variables for name in ("OPTION_MODEL_ID", "HF_MODEL_ID", "SERVING_LOAD_MODELS")):
            yield error("model data", "neither an archive nor a checkpoint is given: --model-data or --checkpoint")
    elif not data.startswith("s3://"):
        yield error("model data", f"{data} is neither in S3 (s3://…) nor a directory of this machine")
    elif wanted.is_prefix and not data.endswith("/"):
        yield error("model data", f"{data} is no .tar.gz, and the prefix of an uncompressed model ends with a slash")
    elif not wanted.is_prefix and not data.endswith(".tar.gz"):
        yield error("model data", f"{data} is no .tar.gz, and SageMaker takes no other archive: use `bloomery package`")
    checkpoint = wanted.checkpoint
    if checkpoint is not None and not checkpoint.startswith("/opt/ml") and _is_here(checkpoint):
        yield error(
            "checkpoint",
            f"{checkpoint} is a directory of this machine, which the container does not have: bring it to S3 with "
            "`bloomery upload`, and name that",
        )
    if checkpoint is not None and re.match(r"s3:/?[^/]", checkpoint):
        yield error("checkpoint", f"{checkpoint} is no address in S3: write s3://bucket/prefix/")
    if checkpoint is not None and "OPTION_MODEL_ID" in wanted.environment:
        yield error("checkpoint", "OPTION_MODEL_ID is in the environment, too: give one of the two")


def _is_here(checkpoint: str) -> bool:
    return checkpoint.startswith(_PATHS) or ("://" not in checkpoint and Path(checkpoint).is_dir())


def _environment(wanted: Deployment) -> Iterator[Finding]:
    total = 0
    for name, value in wanted.variables.items():
        if not isinstance(value, str):
            yield error("environment", f"{name} is {value!r}, of type {type(value).__name__}: write {str(value)!r}")
            continue
        total += len(name.encode()) + len(value.encode())
        if not _VARIABLE.fullmatch(name):
            yield error("environment", f"{name!r} is no name of a variable: letters, digits and underscores")
        if len(value) > 1024 or len(name) > 1024:
            yield error("environment", f"{name} has {len(value)} characters; SageMaker takes 1024 in a name or value")
    if total > _ENVIRONMENT:
        yield error("environment", f"names and values have {total} bytes together; SageMaker takes {_ENVIRONMENT}")
    if len(wanted.variables) > _VARIABLES:
        yield error("environment", f"{len(wanted.variables)} variables; SageMaker takes {_VARIABLES}")


def _network(wanted: Deployment) -> Iterator[Finding]:
    if bool(wanted.subnets) != bool(wanted.security_groups):
        yield error("subnets", "a VPC needs both subnets and security groups: give --subnet and --security-group")
    if wanted.network_isolation and wanted.checkpoint is not None and not wanted.checkpoint.startswith("/opt/ml"):
        yield error(
            "network isolation",
            f"the container could not reach {wanted.checkpoint}: give the weights as --model-data s3://…/ instead",
        )


def _shape(wanted: Deployment) -> Iterator[Finding]:
    """What botocore's model says of the three requests."""
    now = datetime.now(UTC)
    made = [requests.create_model(wanted, now), requests.create_endpoint(wanted, now)]
    made += [requests.create_config(wanted, each, now) for each in wanted.instance_types]
    if wanted.component is not None:
        made += [requests.create_component(wanted, each, now) for each in wanted.instance_types]
    for request in made:
        shape = _service().operation_model(request.operation).input_shape
        yield from _violations(shape, request.parameters, request.operation)


@functools.cache
def _service() -> Any:
    from botocore.session import Session

    return Session().get_service_model("sagemaker")


def _violations(shape: Any, value: Any, name: str) -> Iterator[Finding]:
    if value is None or (name in _MISTAKEN and str(value).startswith("s3://")):  # None: told of already
        return
    if shape.type_name == "structure":
        for member, each in value.items():
            yield from _violations(shape.members[member], each, member)
        return
    if shape.type_name == "list":
        for each in value:
            yield from _violations(shape.member, each, name)
    if shape.type_name in ("list", "string", "integer", "float"):
        what = _WORDS.get(name, name)
        wrong_type = (shape.type_name == "string") != isinstance(value, str) and shape.type_name != "list"
        if wrong_type:
            yield error(what, f"{value!r} is no {'text' if shape.type_name == 'string' else 'number'}")
            return
        constraint = next(broken(shape, value), None)  # a pattern repeats what a length says
        if constraint is not None:
            yield error(what, _sentence(what, value, constraint))


def _sentence(what: str, value: Any, constraint: Constraint) -> str:
    limit = constraint.limit
    shown = f"{len(value)} of them" if isinstance(value, list) else repr(value)
    match constraint.kind:
        case "one of":
            close = difflib.get_close_matches(str(value), limit, 3, 0.7)
            known = f"did you mean {' or '.join(close)}?" if close else f"it is one of {', '.join(limit[:12])}"
            return f"{value!r} is none that SageMaker knows: {known}{'' if close or len(limit) < 13 else ', …'}"
        case "pattern":
            return f"{value!r} is not what SageMaker takes: {_PATTERNS.get(what, limit)}"
        case "longest":
            length = "" if isinstance(value, list) else f" has {len(value)} characters"
            return f"{shown}{length}; SageMaker takes at most {limit}"
        case "shortest":
            return f"{shown} is too short: at least {limit}"
        case "least":
            return f"{shown} is too little: at least {limit}"
        case _:
            return f"{shown} is too much: at most {limit}"
