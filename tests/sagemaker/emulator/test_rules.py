from __future__ import annotations

from typing import Any

import pytest
from tests.sagemaker.emulator.conftest import variant
from tests.support.emulator import ROLE

from bloomery.sagemaker.emulator.api import rules, validate, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.words import Words


def model(**container: Any) -> dict[str, Any]:
    return {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "i", **container}}


def source(uri: str, kind: str, compression: str) -> dict[str, Any]:
    return {"S3DataSource": {"S3Uri": uri, "S3DataType": kind, "CompressionType": compression}}


def config(*variants: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"EndpointConfigName": "c", "ProductionVariants": list(variants), **members}


def component(specification: Any, **members: Any) -> dict[str, Any]:
    named = {"InferenceComponentName": "i", "EndpointName": "e", "VariantName": "v"}
    given = {**named, "Specification": specification, "RuntimeConfig": {"CopyCount": 1}, **members}
    return {key: value for key, value in given.items() if value is not None}


NEEDS = {"MinMemoryRequiredInMb": 1024}
COPY = {"ModelName": "m", "ComputeResourceRequirements": NEEDS}
SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
OUTPUT = {"OutputConfig": {"S3OutputPath": "s3://b/out"}}
BREACHES: list[tuple[str, dict[str, Any], str]] = [
    ("CreateModel", {**model(), "Containers": [{"Image": "i"}]}, "Only one of PrimaryContainer and Containers"),
    ("CreateModel", {"ModelName": "m"}, "Either PrimaryContainer or Containers"),
    ("CreateModel", {"ModelName": "m", "Containers": [{"Image": "a"}, {"Image": "b"}]}, "one container per model"),
    ("CreateModel", model(Mode="MultiModel"), "one container per model"),
    ("CreateModel", {"ModelName": "m", "PrimaryContainer": {"Environment": {}}}, "Image must be specified"),
    (
        "CreateModel",
        model(ModelDataUrl="s3://b/m.tar.gz", ModelDataSource=source("s3://b/p/", "S3Prefix", "None")),
        "both ModelDataUrl and ModelDataSource",
    ),
    ("CreateModel", model(ModelDataUrl="s3://b/model.zip"), "must point to a single gzip compressed tar archive"),
    ("CreateModel", model(ModelDataSource=source("s3://b/p", "S3Prefix", "None")), "must end with a forward slash"),
    ("CreateModel", model(ModelDataSource=source("s3://b/p/", "S3Prefix", "Gzip")), "CompressionType Gzip cannot be"),
    ("CreateModel", model(ModelDataSource=source("s3://b/m", "S3Object", "None")), "not as the single object s3://b/m"),
    ("CreateModel", model(Environment={f"V{n}": "x" * 1000 for n in range(40)}), "the limit is 32 KB"),
    (
        "CreateModel",
        {"ModelName": "m", "PrimaryContainer": {"Image": "i", "ModelDataUrl": "s3://b/m.tar.gz"}},
        "ExecutionRoleArn is required",
    ),
    ("CreateEndpointConfig", config(variant("m"), variant("n")), "AllTraffic is repeated"),
    ("CreateEndpointConfig", config(variant("m"), variant(None, VariantName="B")), "has a ModelName, or none"),
    ("CreateEndpointConfig", config(variant(None)), "ExecutionRoleArn is required"),
    (
        "CreateEndpointConfig",
        config(variant(None), ExecutionRoleArn=ROLE, AsyncInferenceConfig=OUTPUT),
        "not supported for endpoints of inference components",
    ),
    (
        "CreateEndpointConfig",
        config(variant(None, InstanceType=None), ExecutionRoleArn=ROLE),
        "without a ModelName it needs an InstanceType",
    ),
    (
        "CreateEndpointConfig",
        config(
            variant(None, ManagedInstanceScaling={"MinInstanceCount": 3, "MaxInstanceCount": 2}), ExecutionRoleArn=ROLE
        ),
        "MinInstanceCount is above MaxInstanceCount",
    ),
    (
        "CreateEndpointConfig",
        config(variant("m", ManagedInstanceScaling={"Status": "ENABLED"})),
        "only supported for inference component endpoints",
    ),
    ("CreateEndpointConfig", config(variant("m", ServerlessConfig=SERVERLESS)), "either ServerlessConfig or"),
    ("CreateEndpointConfig", config(variant("m", InstanceType=None)), "one of InstanceType and ServerlessConfig"),
    (
        "CreateEndpointConfig",
        config(variant("m", InstancePools=[{"InstanceType": "ml.g5.xlarge", "Priority": 1}])),
        "either InstanceType or InstancePools",
    ),
    ("CreateEndpointConfig", config(variant("m", InitialInstanceCount=None)), "InitialInstanceCount is required"),
    ("CreateEndpointConfig", config(variant("m", VolumeSizeInGB=200)), "not allowed for the selected Instance type"),
    ("CreateEndpointConfig", config(variant("m", InitialVariantWeight=0)), "weights must be greater than 0"),
    (
        "CreateEndpointConfig",
        config(variant("m"), ShadowProductionVariants=[variant("m", VariantName="Shadow")]),
        "no shadow variants",
    ),
    (
        "CreateEndpointConfig",
        config(
            variant("m", InstanceType=None, InitialInstanceCount=None, ServerlessConfig=SERVERLESS),
            AsyncInferenceConfig=OUTPUT,
        ),
        "not supported for serverless endpoints",
    ),
    ("CreateInferenceComponent", component(None), "Either Specification or Specifications is required"),
    ("CreateInferenceComponent", component(COPY, Specifications=[COPY]), "but not both"),
    ("CreateInferenceComponent", component({"BaseInferenceComponentName": "b"}), "no adapter inference components"),
    (
        "CreateInferenceComponent",
        component({**COPY, "ComputeResourceRequirements": {**NEEDS, "AcceleratorPartitionType": "mig-1g.5gb"}}),
        "no accelerator partitions",
    ),
    ("CreateInferenceComponent", component({**COPY, "Container": {"Image": "i"}}), "either a ModelName or a Container"),
    ("CreateInferenceComponent", component({"ModelName": "m"}), "needs ComputeResourceRequirements"),
    (
        "CreateInferenceComponent",
        component({**COPY, "ComputeResourceRequirements": {**NEEDS, "MaxMemoryRequiredInMb": 512}}),
        "MaxMemoryRequiredInMb is below",
    ),
    ("CreateInferenceComponent", component(COPY, VariantName=None), "VariantName and RuntimeConfig are required"),
    ("CreateInferenceComponent", component(COPY, RuntimeConfig={"CopyCount": 0}), "an integer larger than 0"),
    ("UpdateInferenceComponent", {"InferenceComponentName": "i"}, "Nothing is to be updated"),
]


@pytest.mark.parametrize(("operation", "parameters", "told"), BREACHES)
def test_a_breach_is_told(operation: str, parameters: dict[str, Any], told: str) -> None:
    validate.check(operation, parameters)  # it is the rule that refuses, not the types
    with pytest.raises(AwsError) as caught:
        rules.check(operation, parameters)
    assert told in str(caught.value)
    assert caught.value.code == "ValidationException"


def test_every_rule_is_broken_by_a_test() -> None:
    def first(operation: str, parameters: dict[str, Any]) -> rules.Rule:
        return next(rule for rule in rules.RULES[operation] if list(rule.broken(parameters)))

    broken = [first(operation, parameters) for operation, parameters, _ in BREACHES]
    assert [rule.words.text for each in rules.RULES.values() for rule in each if rule not in broken] == []


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("CreateModel", model(ModelDataUrl="s3://b/code/model.tar.gz", Environment={"TENSOR_PARALLEL_DEGREE": "8"})),
        ("CreateModel", model(ModelDataSource=source("s3://b/model/", "S3Prefix", "None"))),
        ("CreateModel", model(ModelDataSource=source("s3://b/model.tar.gz", "S3Object", "Gzip"))),
        ("CreateModel", {"ModelName": "m", "PrimaryContainer": {"Image": "i"}}),
        ("CreateEndpointConfig", config(variant("m"))),
        ("CreateEndpointConfig", config(variant("m", VariantName="A"), variant("m", VariantName="B"))),
        ("CreateEndpointConfig", config(variant("m", InstanceType="ml.c5.xlarge", VolumeSizeInGB=256))),
        ("CreateEndpointConfig", config(variant("m", InstanceType="ml.p3.8xlarge", VolumeSizeInGB=256))),
        ("CreateEndpointConfig", config(variant("m"), AsyncInferenceConfig=OUTPUT)),
        ("CreateEndpointConfig", config(variant(None), ExecutionRoleArn=ROLE)),
        ("CreateInferenceComponent", component(COPY)),
        ("UpdateInferenceComponent", {"InferenceComponentName": "i", "RuntimeConfig": {"CopyCount": 0}}),
    ],
)
def test_what_is_right_passes(operation: str, parameters: dict[str, Any]) -> None:
    validate.check(operation, parameters)
    rules.check(operation, parameters)


def test_every_sentence_says_how_far_to_trust_it() -> None:
    known = {"documented", "reported", "guessed", "ours"}
    sentences = [value for value in vars(words).values() if isinstance(value, Words)]
    sentences += [rule.words for each in rules.RULES.values() for rule in each]
    assert len(sentences) > 40
    assert {sentence.origin for sentence in sentences} == known
    assert {quirk.origin for quirk in rules.QUIRKS} <= known
