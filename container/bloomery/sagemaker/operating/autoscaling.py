"""Let an endpoint's instances or copies follow its requests, see how that goes, and end it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from bloomery.errors import ScalingRefusedError
from bloomery.sagemaker.operating import scaling_requests
from bloomery.sagemaker.operating.absence import ask
from bloomery.sagemaker.operating.description import Component, Description, Variant, components, existing
from bloomery.sagemaker.operating.scaling_requests import FOLLOW, WAKE, Bounds, Scaling
from bloomery.sagemaker.operating.scaling_targets import (
    NAMESPACE,
    SERVICE,
    ScalingTarget,
    component_resource,
    registered,
    variant_resource,
)
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

_ACTIVITIES = 5
_Named = TypeVar("_Named", Variant, Component)


@dataclass(frozen=True)
class Plan:
    """``scalings`` are to be put in force; ``outdated``: what they have no use for any more; ``notes`` for the user."""

    scalings: tuple[Scaling, ...]
    outdated: tuple[Request, ...]
    notes: tuple[str, ...]

    def requests(self) -> list[Request]:
        """All, in their order."""
        return [*(request for each in self.scalings for request in each.requests()), *self.outdated]


@dataclass(frozen=True)
class Activity:
    """Something that Application Auto Scaling did."""

    at: datetime
    what: str
    status: str
    cause: str


@dataclass(frozen=True)
class Scaled:
    """A resource that scales: ``count`` now, and what happened to it last."""

    target: ScalingTarget
    count: int
    activities: tuple[Activity, ...]


def planned(session: Session, name: str, bounds: Bounds, only: str | None = None) -> Plan:
    """How the endpoint ``name`` is to scale: each of its variants, or each of its components; ``only``: that one.

    Raises ScalingRefusedError for what cannot scale so, and SageMakerError.
    """
    _check(bounds)
    endpoint = existing(session, name)
    owned = components(session, name)
    if endpoint.hosts_components or owned:
        scalings = [_of_component(endpoint, each, bounds) for each in _chosen(name, "component", owned, only)]
    else:
        scalings = [_of_variant(endpoint, each, bounds) for each in _chosen(name, "variant", endpoint.variants, only)]
    there = {each.resource: each for each in registered(session, name, [each.name for each in owned])}
    known = [(each, there[each.resource]) for each in scalings if each.resource in there]
    outdated = [request for scaling, target in known for request in _outdated(scaling, target)]
    notes = [
        f"{target.resource} follows policy {policy.name}, too: the larger count wins"
        for _, target in known
        for policy in target.policies
        if policy.name not in (FOLLOW, WAKE)
    ]
    return Plan(tuple(scalings), tuple(outdated), tuple(notes))


def put_in_force(session: Session, plan: Plan) -> None:
    """Make the requests. Raises SageMakerError; what was made before it stays, and doing it again completes it."""
    for scaling in plan.scalings:
        session.send(scaling.register)
        session.send(scaling.follow)
        if scaling.wake is not None:
            policy = session.send(scaling.wake.policy)["PolicyARN"]
            session.send(scaling.wake.alarm_of(policy))
    for request in plan.outdated:
        session.send(request)


def ending(session: Session, name: str) -> list[Request]:
    """The requests after which the endpoint scales no more; its count stays. Raises SageMakerError."""
    existing(session, name)
    targets = registered(session, name, [each.name for each in components(session, name)])
    return [request for each in targets for request in each.removals()]


def shown(session: Session, name: str) -> list[Scaled]:
    """All that scales of the endpoint, by resource. Raises SageMakerError."""
    endpoint, owned = existing(session, name), components(session, name)
    counts = {variant_resource(name, each.name): each.there for each in endpoint.variants}
    counts |= {component_resource(each.name): each.copies for each in owned}
    return [
        Scaled(each, counts.get(each.resource, 0), _activities(session, each))
        for each in registered(session, name, [each.name for each in owned])
    ]


def _check(bounds: Bounds) -> None:
    if not 0 <= bounds.least <= bounds.most:
        raise ScalingRefusedError(f"--min {bounds.least} --max {bounds.most}: from 0 up, and --max not below --min")
    if bounds.most == 0:
        raise ScalingRefusedError("--max 0 is no scaling: `bloomery delete` ends an endpoint")
    if bounds.concurrency <= 0:
        raise ScalingRefusedError(f"--concurrency {bounds.concurrency:g}: requests per instance or copy, more than 0")


def _chosen(endpoint: str, what: str, there: Sequence[_Named], only: str | None) -> Sequence[_Named]:
    chosen = [each for each in there if only in (None, each.name)]
    if not chosen:
        names = ", ".join(each.name for each in there) or "none"
        wanted = f"no {what} {only!r}" if only else f"no {what}"
        raise ScalingRefusedError(f"endpoint {endpoint} has {wanted} that could scale; there is: {names}")
    return chosen


def _outdated(scaling: Scaling, target: ScalingTarget) -> Iterator[Request]:
    """What woke it when it could still have none."""
    for policy in target.policies:
        if policy.name == WAKE and scaling.wake is None:
            yield Request(SERVICE, "DeleteScalingPolicy", {**target.identity, "PolicyName": WAKE})
            if policy.alarms:
                yield Request("cloudwatch", "DeleteAlarms", {"AlarmNames": list(policy.alarms)})


def _of_variant(endpoint: Description, variant: Variant, bounds: Bounds) -> Scaling:
    resource = variant_resource(endpoint.name, variant.name)
    if variant.serverless:
        raise ScalingRefusedError(
            f"variant {variant.name} of {endpoint.name} is serverless and scales by itself, up to the "
            "MaxConcurrency of its configuration"
        )
    if endpoint.asynchronous:
        return scaling_requests.of_asynchronous(resource, endpoint.name, variant.name, bounds)
    if bounds.least == 0:
        raise ScalingRefusedError(
            f"variant {variant.name} of {endpoint.name} cannot scale to 0: SageMaker keeps at least one instance of a "
            "model that answers at once. Use --min 1; or deploy the model as an inference component (`bloomery deploy "
            "--component --max-instances N`), or asynchronous (`--async-output s3://…/`)"
        )
    return scaling_requests.of_variant(resource, bounds)


def _of_component(endpoint: Description, component: Component, bounds: Bounds) -> Scaling:
    if component.base is not None:
        raise ScalingRefusedError(
            f"component {component.name} is an adapter of {component.base} and has no copies of its own: scale "
            f"{component.base}, with --only {component.base}"
        )
    variant = next((each for each in endpoint.variants if each.name == component.variant), None)
    managed = (variant.managed_scaling if variant else None) or {}
    if bounds.least == 0 and not (managed.get("Status") == "ENABLED" and managed.get("MinInstanceCount") == 0):
        raise ScalingRefusedError(
            f"component {component.name} can have 0 copies, but the instances of variant {component.variant} would "
            f"stay and cost: the ManagedInstanceScaling of its configuration is {dict(managed) or 'absent'}. It has to "
            'be like {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": N}: deploy with --max-instances '
            "N, or bring such a configuration with UpdateEndpoint; or use --min 1"
        )
    return scaling_requests.of_component(component_resource(component.name), component.name, bounds)


def _activities(session: Session, target: ScalingTarget) -> tuple[Activity, ...]:
    given: dict[str, Any] = {"ResourceId": target.resource, "ScalableDimension": target.dimension}
    found = ask(session, SERVICE, "DescribeScalingActivities", ServiceNamespace=NAMESPACE, **given) or {}
    return tuple(
        Activity(each["StartTime"], each["Description"], each["StatusCode"], each.get("Cause", ""))
        for each in (found.get("ScalingActivities") or ())[:_ACTIVITIES]
    )
