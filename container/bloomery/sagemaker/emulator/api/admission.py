"""Whether an account may have the instances that a call asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bloomery.sagemaker.emulator.account.account_tables import AccountTables
from bloomery.sagemaker.emulator.api import specs, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.store import Kind as ResourceKind
from bloomery.sagemaker.emulator.api.store import Store
from bloomery.sagemaker.emulator.deployment import EndpointSpec, VariantSpec
from bloomery.sagemaker.emulator.faults import MORE_INSTANCES, Faults, Kind


class Admission:
    """Asked before anything is created or grows."""

    def __init__(self, store: Store, faults: Faults, tables: AccountTables) -> None:
        self._store, self._faults, self._tables = store, faults, tables

    def call(self, operation: str) -> None:
        """Any call of the control plane. Raises AwsError."""
        if self._faults.strike(Kind.THROTTLING, operation=operation):
            raise AwsError(words.THROTTLED.format(), "ThrottlingException")
        if operation not in MORE_INSTANCES and self._faults.strike(Kind.RESOURCE_LIMIT_EXCEEDED, operation=operation):
            raise AwsError(words.LIMIT_OF_OPERATION.format(operation=operation), "ResourceLimitExceeded")

    def endpoint(self, operation: str, new: EndpointSpec, old: EndpointSpec | None = None) -> None:
        """An endpoint is to become ``new``; ``old``: what it is now. Raises AwsError."""
        before = _instances(old.variants if old else ())
        used = self._used()
        for instance_type, count in _instances(new.variants).items():
            delta = count - before[instance_type]
            if delta > 0:
                self._more(operation, instance_type, used[instance_type], delta)

    def _more(self, operation: str, instance_type: str, used: int, delta: int) -> None:
        if self._faults.strike(Kind.RESOURCE_LIMIT_EXCEEDED, operation=operation, instance_type=instance_type):
            raise _exceeded(instance_type, used, used, delta)
        limit = self._tables.quota(instance_type)
        if used + delta > limit:
            raise _exceeded(instance_type, limit, used, delta)

    def _used(self) -> Counter[str]:
        """Instances of all endpoints."""
        total: Counter[str] = Counter()
        for record in self._store.all(ResourceKind.ENDPOINT):
            if record.status != "Failed":
                total += _instances(specs.from_document(record.document["Spec"]).variants)
        return total


def _instances(variants: Iterable[VariantSpec]) -> Counter[str]:
    """By type."""
    counts: Counter[str] = Counter()
    for variant in variants:
        if variant.instance_type != specs.SERVERLESS:
            counts[variant.instance_type] += variant.instance_count
    return counts


def _exceeded(instance_type: str, limit: int, used: int, delta: int) -> AwsError:
    text = words.LIMIT_OF_INSTANCES.format(type=instance_type, limit=limit, used=used, delta=delta)
    return AwsError(text, "ResourceLimitExceeded")
