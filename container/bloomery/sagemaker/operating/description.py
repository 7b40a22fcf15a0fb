"""What an endpoint is now: DescribeEndpoint, its configuration and its inference components, read once, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bloomery.errors import CallError, SageMakerError
from bloomery.sagemaker.operating.absence import ask, is_absence
from bloomery.sagemaker.session import Session

SERVING = ("InService", "Updating", "SystemUpdating", "RollingBack", "UpdateRollbackFailed")  # requests are answered
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")  # and will be in another status


@dataclass(frozen=True)
class Variant:
    """A production variant. ``instance_type`` is None for a serverless one, for one of several types, and when the
    configuration is gone. ``instances``: None where the endpoint does not say, as while it is Creating. ``pools``: of
    one of several types, how many of each are there.
    """

    name: str
    model: str | None
    instance_type: str | None
    wanted: int
    instances: int | None
    managed_scaling: Mapping[str, Any] | None
    pools: Mapping[str, int] = field(default_factory=dict)
    serverless: bool = False

    @property
    def there(self) -> int:
        """Instances that are there, or that are to be while the endpoint does not say."""
        return self.wanted if self.instances is None else self.instances


@dataclass(frozen=True)
class Component:
    """An inference component. ``base``: the component whose adapter it is."""

    name: str
    status: str
    variant: str
    model: str | None
    base: str | None
    copies: int
    wanted: int
    failure: str | None


@dataclass(frozen=True)
class Description:
    """An endpoint. ``configs``: the configuration that serves, and the one that an update brings.
    ``hosts_components``: whether it has no model of its own.
    """

    name: str
    arn: str
    status: str
    created: datetime
    modified: datetime
    configs: tuple[str, ...]
    variants: tuple[Variant, ...]
    asynchronous: bool
    hosts_components: bool
    failure: str | None

    @property
    def since(self) -> datetime:
        """When its status began."""
        return self.created if self.status == "Creating" else self.modified


def describe(session: Session, name: str) -> Description | None:
    """The endpoint called ``name``; None when there is none. Raises SageMakerError."""
    found = ask(session, "sagemaker", "DescribeEndpoint", EndpointName=name)
    if found is None:
        return None
    pending = found.get("PendingDeploymentSummary") or {}
    config = ask(session, "sagemaker", "DescribeEndpointConfig", EndpointConfigName=found["EndpointConfigName"]) or {}
    names = dict.fromkeys((found["EndpointConfigName"], pending.get("EndpointConfigName")))
    return Description(
        name=found["EndpointName"],
        arn=found["EndpointArn"],
        status=found["EndpointStatus"],
        created=found["CreationTime"],
        modified=found["LastModifiedTime"],
        configs=tuple(each for each in names if each),
        variants=tuple(_variants(found, config)),
        asynchronous="AsyncInferenceConfig" in found or "AsyncInferenceConfig" in config,
        hosts_components=any(not models_of(each) for each in config.get("ProductionVariants") or ()),
        failure=found.get("FailureReason"),
    )


def models_of(variant: Mapping[str, Any]) -> list[str]:
    """The models that a variant of a configuration names: one, or one for each type of instances."""
    each = (variant, *(variant.get("InstancePools") or ()))
    names = (one.get("ModelName") or one.get("ModelNameOverride") for one in each)
    return [name for name in names if name]


def existing(session: Session, name: str) -> Description:
    """As ``describe``, and a SageMakerError that says what there is instead."""
    found = describe(session, name)
    if found is None:
        raise SageMakerError(
            f"there is no endpoint {name!r} in {session.region}: `bloomery ls --all` lists those there are; "
            "another region is asked with --region"
        )
    return found


def components(session: Session, endpoint: str) -> list[Component]:
    """Those of an endpoint, by name; none of one that is gone. Raises SageMakerError."""
    pages = session.pages("sagemaker", "ListInferenceComponents", EndpointNameEquals=endpoint)
    try:
        names = [each["InferenceComponentName"] for page in pages for each in page["InferenceComponents"]]
    except CallError as error:
        if not is_absence(error):
            raise
        return []
    answers = (
        ask(session, "sagemaker", "DescribeInferenceComponent", InferenceComponentName=each) for each in sorted(names)
    )
    return [_component(each) for each in answers if each is not None]


def tags(session: Session, arn: str) -> dict[str, str]:
    """Of whatever has that ARN. Raises SageMakerError."""
    pages = session.pages("sagemaker", "ListTags", ResourceArn=arn)
    return {each["Key"]: each["Value"] for page in pages for each in page["Tags"]}


def _variants(endpoint: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Variant]:
    """The configuration has types and models, the endpoint has what is there now."""
    now = {each["VariantName"]: each for each in endpoint.get("ProductionVariants") or ()}
    given = {each["VariantName"]: each for each in config.get("ProductionVariants") or ()}
    for name in dict.fromkeys((*given, *now)):
        there, asked = now.get(name, {}), given.get(name, {})
        yield Variant(
            name=name,
            model=asked.get("ModelName"),
            instance_type=asked.get("InstanceType"),
            wanted=there.get("DesiredInstanceCount", asked.get("InitialInstanceCount", 0)),
            instances=there.get("CurrentInstanceCount"),
            managed_scaling=there.get("ManagedInstanceScaling") or asked.get("ManagedInstanceScaling"),
            pools={
                each["InstanceType"]: each.get("CurrentInstanceCount", 0)
                for each in there.get("InstancePools") or asked.get("InstancePools") or ()
            },
            serverless="ServerlessConfig" in asked or "CurrentServerlessConfig" in there,
        )


def _component(found: Mapping[str, Any]) -> Component:
    specification, runtime = found.get("Specification") or {}, found.get("RuntimeConfig") or {}
    return Component(
        name=found["InferenceComponentName"],
        status=found["InferenceComponentStatus"],
        variant=found.get("VariantName", ""),
        model=specification.get("ModelName"),
        base=specification.get("BaseInferenceComponentName"),
        copies=runtime.get("CurrentCopyCount", 0),
        wanted=runtime.get("DesiredCopyCount", 0),
        failure=found.get("FailureReason"),
    )
