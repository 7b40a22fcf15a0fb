"""The alarms of an AutoRollbackConfiguration: looked at in CloudWatch as long as an update lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator import words
from bloomery.sagemaker.emulator.clients import Clients

_PERIOD = 1.0  # seconds between two looks


class Watch(Protocol):
    """Ends an update when it has to be."""

    async def check(self) -> None:
        """Raise DeploymentFailure when an alarm is on."""

    async def watch(self, seconds: float) -> None:
        """So long, but raise DeploymentFailure as soon as an alarm is on."""


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
        tripped = sorted(alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM")
        if tripped:
            raise DeploymentFailure(words.ALARM.format(names=tripped))

    async def watch(self, seconds: float) -> None:
        """As ``Watch.watch``."""
        end = time.monotonic() + seconds
        while True:
            await self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _PERIOD) if self._names else left)
