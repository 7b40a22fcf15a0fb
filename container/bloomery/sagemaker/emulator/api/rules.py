"""What SageMaker asks of a request beyond its fields' types, and what this emulator does otherwise than SageMaker.

One table: each row says which calls it concerns, what it says, and how we know (``words.Origin``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.emulator.api import component_rules
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.rule import Parameters, Rule, when
from bloomery.sagemaker.emulator.api.words import Origin, Words
from bloomery.sagemaker.instances import has_local_storage


@dataclass(frozen=True)
class Quirk:
    """Behaviour that no single request shows; told here so that it can be corrected in one place."""

    what: str
    origin: Origin


def check(operation: str, parameters: Parameters) -> None:
    """Raise AwsError for the first rule that ``parameters`` break."""
    for rule in RULES.get(operation, ()):
        for values in rule.broken(parameters):
            raise AwsError(rule.words.format(**values))


# --- what the rows look at
def containers(parameters: Parameters) -> list[Mapping[str, Any]]:
    """The containers of a CreateModel request."""
    primary = parameters.get("PrimaryContainer")
    return [primary] if primary else list(parameters.get("Containers") or ())


def _variants(parameters: Parameters) -> list[Mapping[str, Any]]:
    return list(parameters.get("ProductionVariants") or ())


def _data_source(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    source: Mapping[str, Any] | None = (container.get("ModelDataSource") or {}).get("S3DataSource")
    return source


def _each_container(wrong: Callable[[Mapping[str, Any]], bool]) -> Callable[[Parameters], Iterator[dict[str, object]]]:
    def broken(parameters: Parameters) -> Iterator[dict[str, object]]:
        for container in containers(parameters):
            if wrong(container):
                source = _data_source(container) or {}
                yield {
                    "uri": source.get("S3Uri", container.get("ModelDataUrl")),
                    "type": source.get("S3DataType"),
                    "compression": source.get("CompressionType"),
                }

    return broken


def _each_variant(wrong: Callable[[Mapping[str, Any]], bool]) -> Callable[[Parameters], Iterator[dict[str, object]]]:
    def broken(parameters: Parameters) -> Iterator[dict[str, object]]:
        for variant in _variants(parameters):
            if wrong(variant):
                yield {"variant": variant["VariantName"], "type": variant.get("InstanceType")}

    return broken


def _repeated_variant(parameters: Parameters) -> Iterator[dict[str, object]]:
    seen = set()
    for variant in _variants(parameters) + list(parameters.get("ShadowProductionVariants") or ()):
        name = variant["VariantName"]
        if name in seen:
            yield {"variant": name}
        seen.add(name)


def _environment_bytes(parameters: Parameters) -> Iterator[dict[str, object]]:
    total = sum(
        len(name.encode()) + len(value.encode())
        for container in containers(parameters)
        for name, value in (container.get("Environment") or {}).items()
    )
    if total > _ENVIRONMENT:
        yield {"bytes": total}


def _is_archive(container: Mapping[str, Any]) -> bool:
    return not container.get("ModelDataUrl") or str(container["ModelDataUrl"]).endswith(".tar.gz")


def _is_combination(container: Mapping[str, Any]) -> bool:
    source = _data_source(container)
    return source is None or (source["S3DataType"], source["CompressionType"]) in {
        ("S3Prefix", "None"),
        ("S3Object", "None"),
        ("S3Object", "Gzip"),
    }


def _is_plain_object(container: Mapping[str, Any]) -> bool:
    source = _data_source(container) or {}
    return (source.get("S3DataType"), source.get("CompressionType")) == ("S3Object", "None")


def _prefix_open(container: Mapping[str, Any]) -> bool:
    source = _data_source(container)
    return source is not None and source["S3DataType"] == "S3Prefix" and not str(source["S3Uri"]).endswith("/")


def _volume_unwanted(variant: Mapping[str, Any]) -> bool:
    return "VolumeSizeInGB" in variant and has_local_storage(str(variant.get("InstanceType", "")))


def _scaling_crossed(variant: Mapping[str, Any]) -> bool:
    scaling = variant.get("ManagedInstanceScaling") or {}
    least, most = scaling.get("MinInstanceCount"), scaling.get("MaxInstanceCount")
    return least is not None and most is not None and least > most


_ENVIRONMENT = 32 * 1024
_NO_HOME = ("MultiModelConfig", "AdditionalModelDataSources", "ModelPackageName")

CREATE_MODEL = (
    Rule(
        Words("Only one of PrimaryContainer and Containers can be specified.", "guessed"),
        when(lambda p: bool(p.get("PrimaryContainer")) and bool(p.get("Containers"))),
    ),
    Rule(
        Words("Either PrimaryContainer or Containers must be specified.", "guessed"),
        when(lambda p: not containers(p)),
    ),
    Rule(
        Words(
            "This emulator runs one container per model: no inference pipelines, multi-model containers, "
            "model packages or additional model data sources.",
            "ours",
        ),
        when(
            lambda p: (
                len(containers(p)) > 1
                or any(c.get("Mode") == "MultiModel" or any(c.get(name) for name in _NO_HOME) for c in containers(p))
            )
        ),
    ),
    Rule(
        Words("Image must be specified in the container definition.", "guessed"),
        _each_container(lambda c: not c.get("Image")),
    ),
    Rule(
        Words("You cannot specify both ModelDataUrl and ModelDataSource in a container.", "guessed"),
        _each_container(lambda c: bool(c.get("ModelDataUrl")) and bool(c.get("ModelDataSource"))),
    ),
    Rule(
        Words("ModelDataUrl {uri} must point to a single gzip compressed tar archive (.tar.gz suffix).", "documented"),
        _each_container(lambda c: not _is_archive(c)),
    ),
    Rule(
        Words("S3Uri {uri} of an S3Prefix must end with a forward slash (/).", "documented"),
        _each_container(_prefix_open),
    ),
    Rule(
        Words("CompressionType {compression} cannot be used with S3DataType {type}.", "documented"),
        _each_container(lambda c: not _is_combination(c)),
    ),
    Rule(
        Words(
            "This emulator takes an uncompressed model as S3Prefix, not as the single object {uri}: name its prefix.",
            "ours",
        ),
        _each_container(_is_plain_object),
    ),
    Rule(
        Words("The keys and values of Environment have {bytes} bytes together; the limit is 32 KB.", "documented"),
        _environment_bytes,
    ),
    Rule(
        Words("ExecutionRoleArn is required to read model data from S3.", "guessed"),
        when(
            lambda p: (
                not p.get("ExecutionRoleArn")
                and any(c.get("ModelDataUrl") or c.get("ModelDataSource") for c in containers(p))
            )
        ),
    ),
)

CREATE_ENDPOINT_CONFIG = (
    Rule(
        Words("Variant names must be unique; {variant} is repeated.", "guessed"),
        _repeated_variant,
    ),
    Rule(
        Words("Either every production variant has a ModelName, or none, for inference components.", "guessed"),
        when(lambda p: len({bool(v.get("ModelName")) for v in _variants(p)}) > 1),
    ),
    Rule(
        Words(
            "ExecutionRoleArn is required for endpoints to which you plan to deploy inference components.", "guessed"
        ),
        when(lambda p: not p.get("ExecutionRoleArn") and any(not v.get("ModelName") for v in _variants(p))),
    ),
    Rule(
        Words("Production variant {variant}: without a ModelName it needs an InstanceType.", "guessed"),
        _each_variant(lambda v: not v.get("ModelName") and not v.get("InstanceType")),
    ),
    Rule(
        Words("AsyncInferenceConfig is not supported for endpoints of inference components.", "guessed"),
        when(lambda p: bool(p.get("AsyncInferenceConfig")) and any(not v.get("ModelName") for v in _variants(p))),
    ),
    Rule(
        Words("Production variant {variant}: MinInstanceCount is above MaxInstanceCount.", "guessed"),
        _each_variant(_scaling_crossed),
    ),
    Rule(
        Words("ManagedInstanceScaling is only supported for inference component endpoints.", "reported"),
        _each_variant(lambda v: bool(v.get("ManagedInstanceScaling")) and bool(v.get("ModelName"))),
    ),
    Rule(
        Words(
            "Production variant {variant}: either ServerlessConfig or InstanceType, not both.",
            "documented",
        ),
        _each_variant(lambda v: bool(v.get("ServerlessConfig")) and bool(v.get("InstanceType"))),
    ),
    Rule(
        Words("Production variant {variant}: one of InstanceType and ServerlessConfig is required.", "guessed"),
        _each_variant(lambda v: not (v.get("InstanceType") or v.get("ServerlessConfig") or v.get("InstancePools"))),
    ),
    Rule(
        Words("Production variant {variant}: either InstanceType or InstancePools, not both.", "guessed"),
        _each_variant(lambda v: bool(v.get("InstanceType")) and bool(v.get("InstancePools"))),
    ),
    Rule(
        Words("Production variant {variant}: InitialInstanceCount is required.", "guessed"),
        _each_variant(lambda v: not v.get("ServerlessConfig") and not v.get("InitialInstanceCount")),
    ),
    Rule(
        Words("VolumeSize parameter is not allowed for the selected Instance type {type}.", "reported"),
        _each_variant(_volume_unwanted),
    ),
    Rule(
        Words("The sum of the variants' initial weights must be greater than 0.", "guessed"),
        when(lambda p: sum(v.get("InitialVariantWeight", 1.0) for v in _variants(p)) <= 0),
    ),
    Rule(
        Words("This emulator runs no shadow variants: leave ShadowProductionVariants out.", "ours"),
        when(lambda p: bool(p.get("ShadowProductionVariants"))),
    ),
    Rule(
        Words("AsyncInferenceConfig is not supported for serverless endpoints.", "documented"),
        when(lambda p: bool(p.get("AsyncInferenceConfig")) and any(v.get("ServerlessConfig") for v in _variants(p))),
    ),
)

RULES: Mapping[str, tuple[Rule, ...]] = {
    "CreateModel": CREATE_MODEL,
    "CreateEndpointConfig": CREATE_ENDPOINT_CONFIG,
    "CreateInferenceComponent": component_rules.CREATE_INFERENCE_COMPONENT,
    "UpdateInferenceComponent": component_rules.UPDATE_INFERENCE_COMPONENT,
}

QUIRKS = (
    Quirk(
        "Names of endpoints are unique without regard to case, are kept as given and must match in InvokeEndpoint.",
        "documented",
    ),
    Quirk("ARNs hold names in lower case.", "reported"),
    Quirk("Names of models and configurations are looked up without regard to case, too.", "guessed"),
    Quirk("CreateModel looks for the model data; CreateEndpoint does not look again before it deploys.", "reported"),
    Quirk("DescribeEndpoint lists ProductionVariants from InService on.", "guessed"),
    Quirk("Lists hold 10 entries unless MaxResults says otherwise, newest first.", "documented"),
    Quirk("The role must have the form of a role's ARN; it need not exist, and may be of any account.", "ours"),
    Quirk("An image need not be in ECR: --image decides what runs.", "ours"),
    Quirk("An endpoint can be deleted while it is Creating; SageMaker refuses that.", "ours"),
    Quirk(
        "After a restart, endpoints that were InService are Creating until they serve again.",
        "ours",
    ),
    Quirk("Regions only name ARNs, logs and metrics: a model made in one is found from another.", "ours"),
    Quirk("A variant that names no ContainerStartupHealthCheckTimeoutInSeconds has 8 minutes.", "documented"),
    Quirk("A variant that names no ModelDataDownloadTimeoutInSeconds has an hour.", "guessed"),
    Quirk("A serverless variant is one container that never sleeps.", "ours"),
    Quirk("A component that cannot be scaled or updated stays InService as it was, with a FailureReason.", "guessed"),
    Quirk(
        "Target tracking scales out after 3 periods above its target in a row, and in after 15 below 90 % of it.",
        "guessed",
    ),
    Quirk(
        "Scaling policies have no alarms of their own in CloudWatch: the scaler looks at the metrics itself.", "ours"
    ),
    Quirk("Step scaling looks at the alarms that name its policy every period, whatever period they name.", "ours"),
    Quirk("Each instance type has a quota of 100 for endpoints unless --tables says otherwise.", "ours"),
    Quirk("DataCaptureConfig, VpcConfig, KMS keys: kept, described, without effect.", "ours"),
    Quirk("An endpoint can be deleted while it is Updating; SageMaker refuses that.", "ours"),
    Quirk(
        "An update that fails leaves the endpoint InService with its old configuration and a FailureReason, which is "
        "gone as soon as another update begins.",
        "reported",
    ),
    Quirk("After a restart in the middle of an update the old configuration serves.", "ours"),
    Quirk("An instance that leaves answers its requests before it gets SIGTERM.", "guessed"),
    Quirk(
        "CANARY and LINEAR move a share of the requests; all new instances are there before. SageMaker moves whole "
        "instances' worth.",
        "ours",
    ),
    Quirk("Alarms are watched until the old instances end, the TerminationWaitInSeconds included.", "guessed"),
    Quirk("moto does not evaluate alarms: while one is watched, the emulator compares its metric itself.", "ours"),
    Quirk("An endpoint of one instance may be updated by a RollingUpdatePolicy of 50%, in one batch.", "ours"),
    Quirk("Without RoutingConfig the instances of a variant are chosen at random.", "reported"),
    Quirk("PREFIX_AWARE and KV_AWARE route like LEAST_OUTSTANDING_REQUESTS.", "ours"),
    Quirk("A stateful session ends with its container, also when an update replaces that.", "guessed"),
    Quirk("Instances of inference components only count: their copies run on this machine, whatever it has.", "ours"),
    Quirk("An instance has all of its type's memory for inference components; a type we do not know has any.", "ours"),
    Quirk("Managed instance scaling has as many instances as the copies need, at once, once there are any.", "ours"),
    Quirk("SchedulingConfig and DataCacheConfig of inference components: kept, described, without effect.", "ours"),
)
