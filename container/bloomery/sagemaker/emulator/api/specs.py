"""From records, as the API describes things, to what a fleet runs; and to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bloomery.sagemaker.emulator.api import rules
from bloomery.sagemaker.emulator.api.store import Record
from bloomery.sagemaker.emulator.deployment import (
    AsyncOutput,
    ContainerSpec,
    EndpointSpec,
    ModelData,
    Routing,
    VariantSpec,
)

# Seconds, where a variant names none; rules.QUIRKS says how far to trust them.
DOWNLOAD, STARTUP = 3600.0, 480.0
SERVERLESS = "serverless"


def endpoint(name: str, arn: str, config: Record, models: Sequence[Record | None]) -> EndpointSpec:
    """An endpoint of that configuration; ``models`` are those of its variants, in their order, None without one."""
    variants = config.document["ProductionVariants"]
    return EndpointSpec(
        name=name,
        arn=arn,
        config_name=config.name,
        variants=tuple(_variant(variant, model) for variant, model in zip(variants, models, strict=True)),
        async_output=_async_output(config.document.get("AsyncInferenceConfig")),
    )


def _variant(variant: Mapping[str, Any], model: Record | None) -> VariantSpec:
    pools = sorted(variant.get("InstancePools") or (), key=lambda pool: pool.get("Priority", 0))
    instance_type = variant.get("InstanceType") or (pools[0]["InstanceType"] if pools else SERVERLESS)
    return VariantSpec(
        name=variant["VariantName"],
        container=None if model is None else container(model),
        instance_type=instance_type,
        instance_count=variant.get("InitialInstanceCount", 1),
        weight=variant["InitialVariantWeight"],
        download_timeout=variant.get("ModelDataDownloadTimeoutInSeconds", DOWNLOAD),
        startup_timeout=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP),
        routing=_routing(variant.get("RoutingConfig") or {}),
    )


def _routing(given: Mapping[str, Any]) -> Routing:
    """Strategies that look into a request's prompt go by load alone here; rules.QUIRKS says so."""
    strategy = given.get("RoutingStrategy", Routing.RANDOM)
    return Routing.RANDOM if strategy == Routing.RANDOM else Routing.LEAST_OUTSTANDING_REQUESTS


def _async_output(given: Mapping[str, Any] | None) -> AsyncOutput | None:
    if given is None:
        return None
    output = given.get("OutputConfig") or {}
    return AsyncOutput(
        output=output.get("S3OutputPath"),
        failure=output.get("S3FailurePath"),
        max_concurrent=(given.get("ClientConfig") or {}).get("MaxConcurrentInvocationsPerInstance"),
    )


def from_document(document: Mapping[str, Any]) -> EndpointSpec:
    """What ``dataclasses.asdict`` made of a spec, and JSON of that."""
    variants = []
    for variant in document["variants"]:
        given = variant["container"]
        spec = None if given is None else ContainerSpec(**{**given, "data": ModelData(**given["data"])})
        routing = Routing(variant.get("routing", Routing.RANDOM))  # a state of an older emulator has none
        variants.append(VariantSpec(**{**variant, "container": spec, "routing": routing}))
    output = document["async_output"]
    return EndpointSpec(
        **{**document, "variants": tuple(variants), "async_output": AsyncOutput(**output) if output else None}
    )


def container(model: Record) -> ContainerSpec:
    """The container of a model."""
    given = rules.containers(model.document)[0]
    return ContainerSpec(
        image=given["Image"],
        environment=dict(given.get("Environment") or {}),
        data=model_data(given),
        model_name=model.name,
    )


def model_data(container: Mapping[str, Any]) -> ModelData:
    """Where the data of a container definition lies. An ``https://`` address of S3 counts as its ``s3://`` one."""
    if url := container.get("ModelDataUrl"):
        return ModelData(archive=_s3_uri(url))
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source is None:
        return ModelData()
    uri = _s3_uri(source["S3Uri"])
    return ModelData(prefix=uri) if source["S3DataType"] == "S3Prefix" else ModelData(archive=uri)


def _s3_uri(url: str) -> str:
    scheme, rest = url.split("://", 1)
    if scheme == "s3":
        return url
    host, _, path = rest.partition("/")
    bucket, dot, _ = host.partition(".s3")  # bucket.s3.region.amazonaws.com/key, or s3.region.amazonaws.com/bucket/key
    return f"s3://{bucket}/{path}" if dot else f"s3://{path}"
