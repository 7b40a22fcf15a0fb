"""What DescribeEndpoint says of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bloomery.sagemaker.emulator.api import specs
from bloomery.sagemaker.emulator.api.store import Record
from bloomery.sagemaker.emulator.deployment import VariantSpec

SERVES = ("InService", "Updating", "RollingBack", "UpdateRollbackFailed")  # statuses in which requests are answered
_COPIED = ("DataCaptureConfig", "AsyncInferenceConfig", "ExplainerConfig", "MetricsConfig")


def describe(record: Record) -> dict[str, Any]:
    """The answer of DescribeEndpoint."""
    document = record.document
    answer: dict[str, Any] = {
        "EndpointName": record.name,
        "EndpointArn": record.arn,
        "EndpointConfigName": document["EndpointConfigName"],
        "EndpointStatus": record.status,
        "CreationTime": record.created,
        "LastModifiedTime": record.modified,
    }
    answer |= {name: document[name] for name in ("FailureReason", "LastDeploymentConfig") if name in document}
    if record.status in SERVES:
        answer["ProductionVariants"] = _variants(record)
    pending = document.get("Pending")
    if pending and "EndpointConfigName" in pending:
        answer["PendingDeploymentSummary"] = _pending(pending)
    config = document["Config"]
    return answer | {name: config[name] for name in _COPIED if name in config}


def _variants(record: Record) -> list[dict[str, Any]]:
    """What serves; what was asked for by UpdateEndpointWeightsAndCapacities is desired until it is there."""
    document = record.document
    pending = document.get("Pending") or {}
    desired = document["Spec"] if "EndpointConfigName" in pending else pending.get("Spec", document["Spec"])
    described = []
    for now, then, given in zip(
        specs.from_document(document["Spec"]).variants,
        specs.from_document(desired).variants,
        document["Config"]["ProductionVariants"],
        strict=True,
    ):
        # Weights move at once; instances when they are healthy.
        each = _variant(now, given, record.modified) | {"CurrentWeight": then.weight, "DesiredWeight": then.weight}
        if "ServerlessConfig" in given:
            each["CurrentServerlessConfig"] = each["DesiredServerlessConfig"] = given["ServerlessConfig"]
        else:
            each |= {"CurrentInstanceCount": now.instance_count, "DesiredInstanceCount": then.instance_count}
            if now.instance_count != then.instance_count:
                each["VariantStatus"] = [{"Status": "Updating", "StartTime": pending["StartTime"]}]
        described.append(each)
    return described


def _pending(pending: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that is on its way."""
    described = []
    given = pending["Config"]["ProductionVariants"]
    for spec, config in zip(specs.from_document(pending["Spec"]).variants, given, strict=True):
        each = _variant(spec, config, pending["StartTime"])
        each |= {"CurrentWeight": spec.weight, "DesiredWeight": spec.weight}
        each["VariantStatus"] = [{"Status": pending["Status"], "StartTime": pending["Since"]}]
        if "ServerlessConfig" in config:
            each["CurrentServerlessConfig"] = each["DesiredServerlessConfig"] = config["ServerlessConfig"]
        else:
            each |= {
                "InstanceType": spec.instance_type,
                "CurrentInstanceCount": pending["Counts"].get(spec.name, 0),
                "DesiredInstanceCount": spec.instance_count,
            }
        described.append(each)
    return {
        "EndpointConfigName": pending["EndpointConfigName"],
        "ProductionVariants": described,
        "StartTime": pending["StartTime"],
    }


def _variant(spec: VariantSpec, given: Mapping[str, Any], resolved: float) -> dict[str, Any]:
    answer: dict[str, Any] = {"VariantName": spec.name}
    if spec.container is not None:
        image = spec.container.image
        answer["DeployedImages"] = [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": resolved}]
    return answer | {name: given[name] for name in ("RoutingConfig", "ManagedInstanceScaling") if name in given}
