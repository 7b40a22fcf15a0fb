"""From what CreateInferenceComponent is given to what a fleet runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bloomery.sagemaker.emulator.api import specs, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.store import Record
from bloomery.sagemaker.emulator.containers import placement
from bloomery.sagemaker.emulator.containers.placement import Requirements
from bloomery.sagemaker.emulator.deployment import ContainerSpec, EndpointSpec, ModelData, VariantSpec


def variant_of(endpoint: EndpointSpec, name: str) -> VariantSpec:
    """The variant whose instances a component runs on; AwsError when there is none of that name."""
    for variant in endpoint.variants:
        if variant.name == name:
            return variant
    raise AwsError(words.NO_SUCH_VARIANT.format(arn=endpoint.arn, variant=name))


def chosen(given: Mapping[str, Any], variant: VariantSpec) -> Mapping[str, Any]:
    """The specification for the variant's instance type, whose copies fit an instance of it. AwsError if none does."""
    instance_type = variant.instance_type
    specifications = [given["Specification"]] if "Specification" in given else given["Specifications"]
    able = [each for each in specifications if each.get("InstanceType", instance_type) == instance_type]
    if not able:
        raise AwsError(words.WRONG_INSTANCE_TYPE.format(type=instance_type, variant=variant.name))
    one: Mapping[str, Any] = able[0]
    lacking = placement.lacking(instance_type, Requirements.of(one["ComputeResourceRequirements"]))
    if lacking is not None:
        raise AwsError(words.TOO_LARGE.format(type=instance_type, lacking=lacking))
    return one


def component(
    endpoint: EndpointSpec,
    variant: VariantSpec,
    name: str,
    specification: Mapping[str, Any],
    copies: int,
    model: Record | None,
) -> EndpointSpec:
    """The component ``name`` of a variant. ``model``: the one that the specification names."""
    startup = specification.get("StartupParameters") or {}
    copy = replace(
        variant,
        container=_container(specification["Container"]) if model is None else specs.container(model),
        instance_count=copies,
        weight=1.0,
        download_timeout=startup.get("ModelDataDownloadTimeoutInSeconds", specs.DOWNLOAD),
        startup_timeout=startup.get("ContainerStartupHealthCheckTimeoutInSeconds", specs.STARTUP),
    )
    return replace(endpoint, variants=(copy,), async_output=None, component=name)


def with_copies(document: Mapping[str, Any], copies: int) -> dict[str, Any]:
    """The document of a component's spec, with another number of copies."""
    spec = specs.from_document(document)
    return asdict(replace(spec, variants=tuple(replace(each, instance_count=copies) for each in spec.variants)))


def deployment(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A component's DeploymentConfig in the terms of an endpoint's, whose instances its copies are here."""
    if given is None:
        return {}
    rolling = dict(given["RollingUpdatePolicy"])
    for name in ("MaximumBatchSize", "RollbackMaximumBatchSize"):
        if name in rolling:
            kind = "INSTANCE_COUNT" if rolling[name]["Type"] == "COPY_COUNT" else rolling[name]["Type"]
            rolling[name] = {**rolling[name], "Type": kind}
    return {**given, "RollingUpdatePolicy": rolling}


def _container(given: Mapping[str, Any]) -> ContainerSpec:
    url = given.get("ArtifactUrl")
    return ContainerSpec(
        image=given["Image"],
        environment=dict(given.get("Environment") or {}),
        data=specs.model_data({"ModelDataUrl": url}) if url else ModelData(),
        model_name="",
    )
