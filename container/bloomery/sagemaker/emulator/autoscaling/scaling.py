"""Application Auto Scaling for SageMaker: targets and policies as they are registered. ``scaler.py`` acts on them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from bloomery.sagemaker.emulator.api import listing, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call
from bloomery.sagemaker.emulator.api.json_api import Operation
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.autoscaling.activities import Activities
from bloomery.sagemaker.emulator.autoscaling.capacities import COMPONENT, Capacities

PREFIX, SERVICE = "AnyScaleFrontendService.", "application-autoscaling"
_IDENTITY = ("ServiceNamespace", "ResourceId", "ScalableDimension")
_ROLE = (
    "arn:aws:iam::{account}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)
INVOCATIONS = {
    "SageMakerVariantInvocationsPerInstance": "InvocationsPerInstance",
    "SageMakerInferenceComponentInvocationsPerCopy": "InvocationsPerCopy",
}
CONCURRENCY = (
    "SageMakerVariantConcurrentRequestsPerModelHighResolution",
    "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution",
)


class Scaling:
    """The operations."""

    def __init__(self, store: Store, capacities: Capacities, activities: Activities) -> None:
        self._store, self._capacities, self._activities = store, capacities, activities

    def operations(self) -> Mapping[str, Operation]:
        """By name."""
        return {
            "RegisterScalableTarget": self.register,
            "DescribeScalableTargets": self.describe_targets,
            "DeregisterScalableTarget": self.deregister,
            "PutScalingPolicy": self.put_policy,
            "DescribeScalingPolicies": self.describe_policies,
            "DeleteScalingPolicy": self.delete_policy,
            "DescribeScalingActivities": self.describe_activities,
        }

    async def register(self, call: Call) -> dict[str, Any]:
        """RegisterScalableTarget: a new one, or other limits of one that there is."""
        given = call.parameters
        capacity = self._capacities.find(given["ResourceId"], given["ScalableDimension"])
        _check_namespace(given)
        if capacity is None:
            raise AwsError(words.NOTHING_TO_SCALE.format(resource=given["ResourceId"]))
        known = self._store.get(Kind.SCALABLE_TARGET, _name(given))
        limits = {name: given.get(name, known and known.document[name]) for name in ("MinCapacity", "MaxCapacity")}
        if None in limits.values():
            raise AwsError(words.NO_CAPACITY_LIMITS.format())
        if limits["MinCapacity"] > limits["MaxCapacity"]:
            raise AwsError(words.CAPACITY_LIMITS_CROSSED.format())
        if limits["MinCapacity"] < 1 and not capacity.zero:
            raise AwsError(words.NOT_TO_ZERO.format(resource=given["ResourceId"]))
        changes = {**limits, **({"SuspendedState": given["SuspendedState"]} if "SuspendedState" in given else {})}
        if known is not None:
            self._store.change(known, "", **changes)
            return {"ScalableTargetARN": known.arn}
        arn = f"arn:aws:application-autoscaling:{call.region}:{call.account}:scalable-target/{uuid.uuid4()}"
        suspended = dict.fromkeys(
            ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"), False
        )
        document = {
            **{name: given[name] for name in _IDENTITY},
            "RoleARN": given.get("RoleARN", _ROLE.format(account=call.account)),
            "SuspendedState": suspended,
            **changes,
        }
        self._store.add(Record.new(Kind.SCALABLE_TARGET, _name(given), arn, document), {})
        return {"ScalableTargetARN": arn}

    async def describe_targets(self, call: Call) -> dict[str, Any]:
        """DescribeScalableTargets."""
        given = call.parameters
        wanted = given.get("ResourceIds")
        chosen = [
            each
            for each in self._store.all(Kind.SCALABLE_TARGET)
            if (not wanted or each.document["ResourceId"] in wanted)
            and given.get("ScalableDimension", each.document["ScalableDimension"]) == each.document["ScalableDimension"]
        ]
        shown, more = listing.page(chosen, _paged(given))
        targets = [{**each.document, "ScalableTargetARN": each.arn, "CreationTime": each.created} for each in shown]
        return {"ScalableTargets": targets, **more}

    async def deregister(self, call: Call) -> dict[str, Any]:
        """DeregisterScalableTarget, with its policies."""
        remove_target(self._store, self._target(call))
        return {}

    async def put_policy(self, call: Call) -> dict[str, Any]:
        """PutScalingPolicy: a new one, or one of that name again."""
        given = call.parameters
        target = self._target(call)
        kind = given.get("PolicyType", "StepScaling")
        name = f"{target.name}|{given['PolicyName']}"
        _check_policy(given, kind)
        known = self._store.get(Kind.SCALING_POLICY, name)
        if known is not None:
            self._store.remove(known)
        place = f"resource/sagemaker/{given['ResourceId']}:policyName/{given['PolicyName']}"
        arn = f"arn:aws:autoscaling:{call.region}:{call.account}:scalingPolicy:{uuid.uuid4()}:{place}"
        document = {name: value for name, value in given.items() if name != "PolicyType"} | {"PolicyType": kind}
        record = Record.new(Kind.SCALING_POLICY, name, known.arn if known else arn, document)
        self._store.add(record, {})
        return {"PolicyARN": record.arn, "Alarms": []}

    async def describe_policies(self, call: Call) -> dict[str, Any]:
        """DescribeScalingPolicies."""
        given = call.parameters
        names = given.get("PolicyNames")
        chosen = [
            each
            for each in self._store.all(Kind.SCALING_POLICY)
            if (not names or each.document["PolicyName"] in names)
            and all(given.get(name, each.document[name]) == each.document[name] for name in _IDENTITY[1:])
        ]
        shown, more = listing.page(chosen, _paged(given))
        policies = [{**each.document, "PolicyARN": each.arn, "CreationTime": each.created} for each in shown]
        return {"ScalingPolicies": [{**each, "Alarms": []} for each in policies], **more}

    async def delete_policy(self, call: Call) -> dict[str, Any]:
        """DeleteScalingPolicy."""
        name = f"{_name(call.parameters)}|{call.parameters['PolicyName']}"
        record = self._store.get(Kind.SCALING_POLICY, name)
        if record is None:
            raise AwsError(words.NO_POLICY.format(name=call.parameters["PolicyName"]), "ObjectNotFoundException")
        self._store.remove(record)
        return {}

    async def describe_activities(self, call: Call) -> dict[str, Any]:
        """DescribeScalingActivities, the newest first; they are not kept over a restart."""
        given = call.parameters
        return {"ScalingActivities": self._activities.of(given.get("ResourceId"), given.get("ScalableDimension"))}

    def _target(self, call: Call) -> Record:
        _check_namespace(call.parameters)
        record = self._store.get(Kind.SCALABLE_TARGET, _name(call.parameters))
        if record is None:
            text = words.NO_TARGET.format(
                resource=call.parameters["ResourceId"], dimension=call.parameters["ScalableDimension"]
            )
            raise AwsError(text, "ObjectNotFoundException")
        return record


def policies_of(store: Store, target: Record) -> list[Record]:
    """The policies of a target."""
    return [each for each in store.all(Kind.SCALING_POLICY) if each.name.startswith(f"{target.name}|")]


def remove_target(store: Store, target: Record) -> None:
    """With its policies."""
    for policy in policies_of(store, target):
        store.remove(policy)
    store.remove(target)


def _name(given: Mapping[str, Any]) -> str:
    return f"{given['ResourceId']}|{given['ScalableDimension']}"


def _paged(given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``listing`` may see of a request."""
    return {"MaxResults": 50, **{name: given[name] for name in ("MaxResults", "NextToken") if name in given}}


def _check_namespace(given: Mapping[str, Any]) -> None:
    if given["ServiceNamespace"] != "sagemaker":
        raise AwsError(words.OTHER_NAMESPACE.format(namespace=given["ServiceNamespace"]))


def _check_policy(given: Mapping[str, Any], kind: str) -> None:
    member = {
        "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
        "StepScaling": "StepScalingPolicyConfiguration",
    }.get(kind)
    if member is None:
        raise AwsError(words.NO_POLICY_TYPE.format(kind=kind))
    if member not in given:
        raise AwsError(words.NO_POLICY_CONFIG.format(kind=kind, member=member))
    if kind == "StepScaling":
        if not given[member].get("StepAdjustments"):
            raise AwsError(words.NO_STEPS.format())
        return
    config = given[member]
    predefined, own = config.get("PredefinedMetricSpecification"), config.get("CustomizedMetricSpecification")
    if (predefined is None) == (own is None):
        raise AwsError(words.ONE_METRIC.format())
    if config["TargetValue"] <= 0:
        raise AwsError(words.TARGET_VALUE.format(value=config["TargetValue"]))
    if own is not None and not {"MetricName", "Namespace", "Statistic"} <= set(own):
        raise AwsError(words.METRIC_MATH.format())
    if predefined is not None:
        metric = predefined["PredefinedMetricType"]
        known = [
            name
            for name in (*INVOCATIONS, *CONCURRENCY)
            if ("Component" in name) == (given["ScalableDimension"] == COMPONENT)
        ]
        if metric not in known:
            raise AwsError(
                words.NO_METRIC.format(metric=metric, dimension=given["ScalableDimension"], known=", ".join(known))
            )
