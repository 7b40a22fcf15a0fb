"""What SageMaker asks of a DeploymentConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.deployment import EndpointSpec

_Range = tuple[int, int]  # per cent of a variant's instances
_CANARY, _LINEAR, _ROLLING, _ANY = (0, 50), (10, 50), (5, 50), (0, 100)


def check(config: Mapping[str, Any], spec: EndpointSpec) -> None:
    """AwsError unless ``config`` can bring ``spec`` into service."""
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        raise AwsError(words.TWO_POLICIES.format())
    if rolling:
        _check_size("RollingUpdatePolicy.MaximumBatchSize", rolling["MaximumBatchSize"], spec, _ROLLING)
        if back := rolling.get("RollbackMaximumBatchSize"):
            _check_size("RollingUpdatePolicy.RollbackMaximumBatchSize", back, spec, _ANY)
    if blue_green:
        routing = blue_green["TrafficRoutingConfiguration"]
        for kind, member, limits in (("CANARY", "CanarySize", _CANARY), ("LINEAR", "LinearStepSize", _LINEAR)):
            if (routing["Type"] == kind) != (member in routing):
                raise AwsError(words.SIZE_OF_TYPE.format(member=member, kind=kind))
            if member in routing:
                _check_size(f"TrafficRoutingConfiguration.{member}", routing[member], spec, limits)


def alarms(config: Mapping[str, Any] | None) -> list[str]:
    """The names of the alarms that roll an update back."""
    rollback = (config or {}).get("AutoRollbackConfiguration") or {}
    return [alarm["AlarmName"] for alarm in rollback.get("Alarms") or () if "AlarmName" in alarm]


def _check_size(path: str, size: Mapping[str, Any], spec: EndpointSpec, limits: _Range) -> None:
    least, most = limits
    for variant in spec.variants:
        value, unit = size["Value"], "instances"
        percent = 100 * value / max(1, variant.instance_count)
        if size["Type"] == "CAPACITY_PERCENT":
            percent, unit = value, "%"
        if not least <= percent <= most:
            raise AwsError(
                words.SIZE_LIMITS.format(
                    path=path,
                    size=f"{value} {unit}",
                    least=least,
                    most=most,
                    variant=variant.name,
                    count=variant.instance_count,
                )
            )
