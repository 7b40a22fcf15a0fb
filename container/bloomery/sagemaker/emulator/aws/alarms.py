"""The alarms of an AutoRollbackConfiguration, as long as an update lasts.

An alarm is on when CloudWatch says so. moto, which stands in for it, changes no state by itself, so the metric of an
alarm is looked at, too.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.aws.clients import Clients

_PERIOD = 1.0  # seconds between two looks
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


class Watch(Protocol):
    """Ends an update when it has to be."""

    async def check(self) -> None:
        """Raise DeploymentFailure when an alarm is on."""

    async def watch(self, seconds: float) -> None:
        """So long, but raise DeploymentFailure as soon as an alarm is on."""


Alarming = Callable[[str, Sequence[str]], Watch]  # region, names of alarms


class Alarms:
    """Those called ``names``, in ``region``; none are always off."""

    def __init__(self, clients: Clients, region: str, names: Sequence[str]) -> None:
        self._clients, self._region, self._names = clients, region, list(names)

    async def check(self) -> None:
        """As ``Watch.check``. An alarm that does not exist ends an update, too: it would never be seen."""
        if not self._names:
            return
        try:
            found = await self._clients.call(
                "cloudwatch",
                self._region,
                "describe_alarms",
                AlarmNames=self._names,
                AlarmTypes=["MetricAlarm", "CompositeAlarm"],
            )
        except Exception as error:  # botocore's many
            raise DeploymentFailure(words.NO_ALARMS.format(names=self._names, reason=error)) from error
        alarms = [*found.get("MetricAlarms", ()), *found.get("CompositeAlarms", ())]
        absent = sorted(set(self._names) - {alarm["AlarmName"] for alarm in alarms})
        if absent:
            raise DeploymentFailure(words.NO_ALARMS.format(names=absent, reason="they do not exist"))
        tripped = [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM" or await self._trips(alarm)]
        if tripped:
            raise DeploymentFailure(words.ALARM.format(names=sorted(tripped)))

    async def watch(self, seconds: float) -> None:
        """As ``Watch.watch``."""
        end = time.monotonic() + seconds
        while True:
            await self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _PERIOD) if self._names else left)

    async def _trips(self, alarm: Mapping[str, Any]) -> bool:
        """Whether its metric is beyond its threshold now. Of alarms over expressions only the state counts."""
        if "MetricName" not in alarm or "Statistic" not in alarm or alarm["ComparisonOperator"] not in _COMPARISONS:
            return False
        now = datetime.now(UTC)
        found = await self._clients.call(
            "cloudwatch",
            self._region,
            "get_metric_statistics",
            Namespace=alarm["Namespace"],
            MetricName=alarm["MetricName"],
            Dimensions=alarm.get("Dimensions", []),
            StartTime=now - timedelta(seconds=alarm["Period"] * alarm["EvaluationPeriods"]),
            EndTime=now,
            Period=alarm["Period"],
            Statistics=[alarm["Statistic"]],
        )
        return breaching(alarm, [point[alarm["Statistic"]] for point in found["Datapoints"]])


def breaching(alarm: Mapping[str, Any], values: Sequence[float]) -> bool:
    """Whether enough of the last periods' values are beyond the threshold.

    Periods without a value count as TreatMissingData says, and by default not.
    """
    beyond = _COMPARISONS[alarm["ComparisonOperator"]]
    periods = alarm["EvaluationPeriods"]
    count = sum(beyond(value, alarm["Threshold"]) for value in values)
    if alarm.get("TreatMissingData") == "breaching":
        count += max(0, periods - len(values))
    return count >= int(alarm.get("DatapointsToAlarm") or periods)
