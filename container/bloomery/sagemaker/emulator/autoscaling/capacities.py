"""What can be scaled: the instances of a production variant, and the copies of an inference component."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bloomery.sagemaker.emulator.api import specs, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.components import Components
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.api.updates import Updates
from bloomery.sagemaker.emulator.deployment import component_key

VARIANT, COMPONENT = "sagemaker:variant:DesiredInstanceCount", "sagemaker:inference-component:DesiredCopyCount"
_RESOURCES = {
    VARIANT: re.compile(r"endpoint/(?P<name>[^/]+)/variant/(?P<variant>[^/]+)"),
    COMPONENT: re.compile(r"inference-component/(?P<name>[^/]+)"),
}


@dataclass(frozen=True)
class Capacity:
    """Something to scale, as it is now."""

    record: Record  # the endpoint's or the component's
    variant: str
    count: int
    zero: bool  # whether it may have none

    @property
    def busy(self) -> bool:
        """Whether it cannot be changed now."""
        return self.record.status != "InService"

    @property
    def is_component(self) -> bool:
        """Whether ``count`` is of copies, not of instances."""
        return self.record.kind is Kind.INFERENCE_COMPONENT

    @property
    def what(self) -> str:
        """What is counted, in Application Auto Scaling's words."""
        return "desired copy count" if self.is_component else "desired instance count"

    @property
    def key(self) -> str:
        """By which a fleet knows it."""
        return component_key(self.record.name) if self.is_component else self.record.name

    @property
    def region(self) -> str:
        """Where its metrics are."""
        return self.record.arn.split(":")[3]

    @property
    def dimensions(self) -> dict[str, str]:
        """Of its metrics."""
        if self.is_component:
            return {"InferenceComponentName": self.record.name}
        return {"EndpointName": self.record.name, "VariantName": self.variant}


class Capacities:
    """Reads and changes them by ResourceId and ScalableDimension."""

    def __init__(self, store: Store, updates: Updates, components: Components) -> None:
        self._store, self._updates, self._components = store, updates, components

    def find(self, resource: str, dimension: str) -> Capacity | None:
        """None when there is no such thing. AwsError for a resource that is none of the dimension's."""
        pattern = _RESOURCES.get(dimension)
        if pattern is None:
            raise AwsError(words.NO_DIMENSION.format(dimension=dimension, known=", ".join(_RESOURCES)))
        match = pattern.fullmatch(resource)
        if match is None:
            raise AwsError(words.NO_RESOURCE_ID.format(resource=resource, dimension=dimension))
        if dimension == COMPONENT:
            record = self._store.get(Kind.INFERENCE_COMPONENT, match["name"])
            if record is None:
                return None
            return Capacity(record, record.document["VariantName"], record.document["Copies"], zero=True)
        record = self._store.get(Kind.ENDPOINT, match["name"])
        spec = specs.from_document(record.document["Spec"]) if record else None
        for variant in spec.variants if spec else ():
            if record is not None and spec is not None and variant.name == match["variant"]:
                zero = spec.async_output is not None or variant.container is None
                return Capacity(record, variant.name, variant.instance_count, zero)
        return None

    def change(self, capacity: Capacity, count: int) -> None:
        """Begin to have so many. AwsError when that cannot be."""
        if capacity.is_component:
            self._components.scale(capacity.record, count)
        else:
            self._updates.change(capacity.record, {}, {capacity.variant: count})
