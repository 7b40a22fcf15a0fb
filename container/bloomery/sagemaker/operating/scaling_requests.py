"""The requests that let an endpoint scale, by what it is: pure, from values to values.

Three ways, as AWS documents them: instances of a variant follow the requests in flight per instance; copies of an
inference component those per copy, and to nothing and back; instances of an asynchronous endpoint the requests that
wait per instance, and to nothing and back. What is at nothing has no metric to follow, so an alarm wakes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bloomery.sagemaker.operating.scaling_targets import COPIES, INSTANCES, NAMESPACE, SERVICE
from bloomery.sagemaker.request import Request

FOLLOW, WAKE = "bloomery-concurrency", "bloomery-wake"  # policies, of each target
POLICY_ARN = "{PolicyARN}"  # in the request of an alarm, until its policy is there
_METRICS = "AWS/SageMaker"


@dataclass(frozen=True)
class Bounds:
    """``concurrency``: requests per instance or copy that scaling aims at; cooldowns in seconds, None: AWS's."""

    least: int
    most: int
    concurrency: float
    scale_in_cooldown: int | None = None
    scale_out_cooldown: int | None = None


@dataclass(frozen=True)
class Wake:
    """From nothing to one, when there are requests that nobody can take."""

    policy: Request
    alarm: Request

    def alarm_of(self, policy_arn: str) -> Request:
        """The alarm, once the policy is there."""
        return replace(self.alarm, parameters={**self.alarm.parameters, "AlarmActions": [policy_arn]})


@dataclass(frozen=True)
class Scaling:
    """Of one resource: its limits, what it follows, and what wakes it."""

    resource: str
    dimension: str
    register: Request
    follow: Request
    wake: Wake | None

    def requests(self) -> list[Request]:
        """All, in their order; the alarm's action is not known yet."""
        return [self.register, self.follow, *([self.wake.policy, self.wake.alarm] if self.wake else ())]


def of_variant(resource: str, bounds: Bounds) -> Scaling:
    """A variant that answers at once: never to nothing."""
    metric = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    return _scaling(resource, INSTANCES, bounds, {"PredefinedMetricSpecification": {"PredefinedMetricType": metric}})


def of_component(resource: str, component: str, bounds: Bounds) -> Scaling:
    """An inference component."""
    metric = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    followed = {"PredefinedMetricSpecification": {"PredefinedMetricType": metric}}
    dimensions = {"InferenceComponentName": component}
    wakes = _Alarm(f"{component}-{WAKE}", "NoCapacityInvocationFailures", dimensions, "Maximum", 30, 1)
    return _scaling(resource, COPIES, bounds, followed, wakes)


def of_asynchronous(resource: str, endpoint: str, variant: str, bounds: Bounds) -> Scaling:
    """A variant of an asynchronous endpoint; ``concurrency`` is of requests that wait."""
    dimensions = {"EndpointName": endpoint}
    followed = {
        "CustomizedMetricSpecification": {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": _METRICS,
            "Dimensions": _pairs(dimensions),
            "Statistic": "Average",
        }
    }
    wakes = _Alarm(f"{endpoint}-{variant}-{WAKE}", "HasBacklogWithoutCapacity", dimensions, "Average", 60, 2)
    return _scaling(resource, INSTANCES, bounds, followed, wakes)


@dataclass(frozen=True)
class _Alarm:
    """On when ``metric`` has been 1 for ``periods`` of ``seconds``. ``name`` begins with the endpoint's or component's:
    rights are given by that.
    """

    name: str
    metric: str
    dimensions: Mapping[str, str]
    statistic: str
    seconds: int
    periods: int


def _scaling(
    resource: str, dimension: str, bounds: Bounds, followed: Mapping[str, Any], wakes: _Alarm | None = None
) -> Scaling:
    identity = {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": dimension}
    config: dict[str, Any] = {"TargetValue": float(bounds.concurrency), **followed}
    if bounds.scale_in_cooldown is not None:
        config["ScaleInCooldown"] = bounds.scale_in_cooldown
    if bounds.scale_out_cooldown is not None:
        config["ScaleOutCooldown"] = bounds.scale_out_cooldown
    tracking = {
        **identity,
        "PolicyName": FOLLOW,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": config,
    }
    limits = {**identity, "MinCapacity": bounds.least, "MaxCapacity": bounds.most}
    return Scaling(
        resource,
        dimension,
        Request(SERVICE, "RegisterScalableTarget", limits),
        Request(SERVICE, "PutScalingPolicy", tracking),
        _wake(identity, wakes, bounds) if wakes is not None and bounds.least == 0 else None,
    )


def _wake(identity: Mapping[str, Any], wakes: _Alarm, bounds: Bounds) -> Wake:
    step = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Maximum",
        "Cooldown": 60 if bounds.scale_out_cooldown is None else bounds.scale_out_cooldown,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    policy = {
        **identity,
        "PolicyName": WAKE,
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": step,
    }
    alarm = {
        "AlarmName": wakes.name,
        "AlarmDescription": "bloomery autoscale: requests come while there is no capacity",
        "AlarmActions": [POLICY_ARN],
        "Namespace": _METRICS,
        "MetricName": wakes.metric,
        "Dimensions": _pairs(wakes.dimensions),
        "Statistic": wakes.statistic,
        "Period": wakes.seconds,
        "EvaluationPeriods": wakes.periods,
        "DatapointsToAlarm": wakes.periods,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
    }
    return Wake(Request(SERVICE, "PutScalingPolicy", policy), Request("cloudwatch", "PutMetricAlarm", alarm))


def _pairs(dimensions: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Name": key, "Value": value} for key, value in dimensions.items()]
