"""How many instances an endpoint of inference components has: as many as its configuration says, or, with managed
instance scaling, as many as the copies need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import specs, words
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.containers import placement
from bloomery.sagemaker.emulator.containers.placement import Requirements
from bloomery.sagemaker.emulator.faults import Faults
from bloomery.sagemaker.emulator.faults import Kind as Fault

_MOST = 1000  # instances, where the configuration names no limit


class Machines:
    """Counts the instances of endpoints in their records."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults

    def fit(self, component: Record, copies: int, specification: Mapping[str, Any] | None = None) -> None:
        """Make room for so many copies of a component, which its record then holds as ``Placed``.

        ``specification``: another than the record's, which is to follow.

        Raises DeploymentFailure when there is no room.
        """
        found = self._variant(component)
        if found is None:
            return
        endpoint, number = found
        spec = specs.from_document(endpoint.document["Spec"])
        scaling = _scaling(endpoint, number)
        most = spec.variants[number].instance_count if scaling is None else scaling.get("MaxInstanceCount", _MOST)
        each = _requirements(specification or component.document["Specification"])
        needed = self._needed(component, spec.variants[number].instance_type, (each, copies))
        if needed > most:
            raise DeploymentFailure(words.NO_ROOM.format())
        if needed > spec.variants[number].instance_count:
            instance_type = spec.variants[number].instance_type
            if self._faults.strike(
                Fault.INSUFFICIENT_INSTANCE_CAPACITY, instance_type=instance_type, endpoint=spec.name
            ):
                raise DeploymentFailure(words.NO_INSTANCES.format())
            self._have(endpoint, number, needed)
        if (current := self._store.by_arn(component.arn)) is not None:
            self._store.change(current, current.status, Placed=copies)

    def release(self, component: Record) -> None:
        """Let go of instances that no copy needs any more, if they are managed."""
        found = self._variant(component)
        if found is None:
            return
        endpoint, number = found
        scaling = _scaling(endpoint, number)
        if scaling is not None:
            instance_type = specs.from_document(endpoint.document["Spec"]).variants[number].instance_type
            self._have(
                endpoint, number, max(scaling.get("MinInstanceCount", 1), self._needed(component, instance_type, None))
            )

    def _variant(self, component: Record) -> tuple[Record, int] | None:
        """The endpoint, and which of its variants a component is on; None when it is being taken apart."""
        endpoint = self._store.get(Kind.ENDPOINT, component.document["EndpointName"])
        if endpoint is None:
            return None
        names = [each["name"] for each in endpoint.document["Spec"]["variants"]]
        name = component.document["VariantName"]
        return (endpoint, names.index(name)) if name in names else None

    def _needed(self, component: Record, instance_type: str, wanted: tuple[Requirements, int] | None) -> int:
        """Instances for all components of a variant; ``wanted``: what this one is about to have."""
        copies = [
            (_requirements(each.document["Specification"]), each.document.get("Placed", 0))
            for each in self._store.all(Kind.INFERENCE_COMPONENT)
            if each.document["EndpointArn"] == component.document["EndpointArn"]
            and each.document["VariantName"] == component.document["VariantName"]
            and not (wanted and each.arn == component.arn)
        ]
        return placement.machines(instance_type, [*copies, wanted] if wanted else copies)

    def _have(self, endpoint: Record, number: int, count: int) -> None:
        spec = specs.from_document(endpoint.document["Spec"])
        if spec.variants[number].instance_count != count:
            variants = list(spec.variants)
            variants[number] = replace(variants[number], instance_count=count)
            self._store.change(endpoint, endpoint.status, Spec=asdict(replace(spec, variants=tuple(variants))))


def _scaling(endpoint: Record, number: int) -> Mapping[str, Any] | None:
    """The ManagedInstanceScaling of a variant, if it is on."""
    given = endpoint.document["Config"]["ProductionVariants"][number].get("ManagedInstanceScaling") or {}
    return given if given.get("Status") == "ENABLED" else None


def _requirements(specification: Mapping[str, Any]) -> Requirements:
    return Requirements.of(specification["ComputeResourceRequirements"])
