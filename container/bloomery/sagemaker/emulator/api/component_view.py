"""What DescribeInferenceComponent and ListInferenceComponents say of a record."""

from __future__ import annotations

from typing import Any

from bloomery.sagemaker.emulator.api import specs
from bloomery.sagemaker.emulator.api.store import Record


def summary(record: Record) -> dict[str, Any]:
    """One entry of ListInferenceComponents."""
    return {
        "InferenceComponentName": record.name,
        "InferenceComponentArn": record.arn,
        "EndpointName": record.document["EndpointName"],
        "EndpointArn": record.document["EndpointArn"],
        "VariantName": record.document["VariantName"],
        "InferenceComponentStatus": record.status,
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
    }


def describe(record: Record) -> dict[str, Any]:
    """The answer of DescribeInferenceComponent."""
    document = record.document
    answer = summary(record) | {"Specification": _specification(record), "RuntimeConfig": _runtime(record)}
    return answer | {name: document[name] for name in ("FailureReason", "LastDeploymentConfig") if name in document}


def _specification(record: Record) -> dict[str, Any]:
    given = dict(record.document["Specification"])
    (variant,) = specs.from_document(record.document["Spec"]).variants
    assert variant.container is not None
    image = variant.container.image
    deployed = {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": record.created}
    kept = {name: value for name, value in (given.get("Container") or {}).items() if name != "Image"}
    if "ModelName" not in given:
        given["Container"] = {**kept, "DeployedImage": deployed}
    return given


def _runtime(record: Record) -> dict[str, int]:
    """Copies are current when they serve."""
    document = record.document
    there = 0 if record.status in ("Creating", "Failed") else document["Copies"]
    pending = document.get("Pending") or {}
    return {"DesiredCopyCount": pending.get("Copies", document["Copies"]), "CurrentCopyCount": there}
