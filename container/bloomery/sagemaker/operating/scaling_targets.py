"""What Application Auto Scaling has registered for an endpoint: targets, their policies, and the alarms of those."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

SERVICE, NAMESPACE = "application-autoscaling", "sagemaker"
INSTANCES = "sagemaker:variant:DesiredInstanceCount"
COPIES = "sagemaker:inference-component:DesiredCopyCount"


@dataclass(frozen=True)
class Policy:
    """A scaling policy. ``config``: its TargetTrackingScaling- or StepScalingPolicyConfiguration. ``alarms``: names of
    the alarms that start it and nothing else, and that are nobody's to remove but ours (target tracking has its own).
    ``shared_alarms``: those that do something else, too.
    """

    name: str
    arn: str
    kind: str
    config: Mapping[str, Any]
    alarms: tuple[str, ...] = ()
    shared_alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScalingTarget:
    """Something whose count is scaled between ``least`` and ``most``."""

    resource: str
    dimension: str
    least: int
    most: int
    policies: tuple[Policy, ...] = ()

    @property
    def identity(self) -> dict[str, str]:
        """By which the service knows it."""
        return {"ServiceNamespace": NAMESPACE, "ResourceId": self.resource, "ScalableDimension": self.dimension}

    def removals(self) -> Iterator[Request]:
        """The requests after which nothing of it is left; its policies go with it."""
        yield Request(SERVICE, "DeregisterScalableTarget", self.identity)
        names = [name for policy in self.policies for name in policy.alarms]
        if names:
            yield Request("cloudwatch", "DeleteAlarms", {"AlarmNames": names})


def variant_resource(endpoint: str, variant: str) -> str:
    """The ResourceId of a production variant."""
    return f"endpoint/{endpoint}/variant/{variant}"


def component_resource(component: str) -> str:
    """The ResourceId of an inference component."""
    return f"inference-component/{component}"


def registered(session: Session, endpoint: str, components: Collection[str]) -> list[ScalingTarget]:
    """Those of an endpoint's variants, and of its ``components``. Raises SageMakerError."""
    wanted = {component_resource(name) for name in components}
    found = [
        each
        for page in session.pages(SERVICE, "DescribeScalableTargets", ServiceNamespace=NAMESPACE)
        for each in page["ScalableTargets"]
        if each["ResourceId"].startswith(variant_resource(endpoint, "")) or each["ResourceId"] in wanted
    ]
    return [
        ScalingTarget(
            resource=each["ResourceId"],
            dimension=each["ScalableDimension"],
            least=each["MinCapacity"],
            most=each["MaxCapacity"],
            policies=tuple(_policies(session, each["ResourceId"], each["ScalableDimension"])),
        )
        for each in sorted(found, key=lambda each: str(each["ResourceId"]))
    ]


def _policies(session: Session, resource: str, dimension: str) -> Iterator[Policy]:
    identity = {"ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": dimension}
    found = [
        each
        for page in session.pages(SERVICE, "DescribeScalingPolicies", **identity)
        for each in page["ScalingPolicies"]
    ]
    ours = {each["PolicyARN"] for each in found}
    for each in found:
        kind = each["PolicyType"]
        config = each.get(f"{kind}PolicyConfiguration") or {}
        alarms = [] if kind == "TargetTrackingScaling" else list(_alarms(session, each["PolicyARN"]))
        alone = [alarm["AlarmName"] for alarm in alarms if _actions(alarm) <= ours]
        others = [alarm["AlarmName"] for alarm in alarms if alarm["AlarmName"] not in alone]
        yield Policy(each["PolicyName"], each["PolicyARN"], kind, config, tuple(alone), tuple(others))


def _alarms(session: Session, policy: str) -> Iterator[Mapping[str, Any]]:
    for page in session.pages("cloudwatch", "DescribeAlarms", ActionPrefix=policy):
        yield from page.get("MetricAlarms") or ()


def _actions(alarm: Mapping[str, Any]) -> set[str]:
    names = ("AlarmActions", "OKActions", "InsufficientDataActions")
    return {action for name in names for action in alarm.get(name) or ()}
