"""Acts on scaling policies: looks at metrics every period, and changes counts."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.autoscaling import activities, scaling_policies
from bloomery.sagemaker.emulator.autoscaling.activities import Activities
from bloomery.sagemaker.emulator.autoscaling.capacities import Capacities, Capacity
from bloomery.sagemaker.emulator.autoscaling.scaling import INVOCATIONS, policies_of, remove_target
from bloomery.sagemaker.emulator.autoscaling.scaling_policies import COOLDOWN, IN_PERIODS, OUT_PERIODS
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.metrics import NAMESPACE
from bloomery.sagemaker.emulator.aws.periodic import Periodic
from bloomery.sagemaker.emulator.deployment import Fleet, Window

logger = logging.getLogger(__name__)
_PERIOD, _HIGH_RESOLUTION = 60.0, 10.0  # seconds, as CloudWatch has the metrics
_LOOKS = 5  # at the concurrency, in a period


@dataclass
class _Policy:
    """What is known of a policy since the emulator started. Times on the clock of time.monotonic."""

    looked: float = field(default_factory=time.monotonic)
    above: int = 0  # periods in a row
    below: int = 0
    scaled: float = -1e9  # when it last changed something
    concurrency: deque[float] = field(default_factory=lambda: deque(maxlen=_LOOKS))


@dataclass(frozen=True)
class _Wish:
    count: int
    cause: str
    policy: _Policy


class Scaler:
    """``period``: seconds of one look, in the place of each metric's own; None: those."""

    def __init__(
        self,
        store: Store,
        capacities: Capacities,
        record: Activities,
        fleet: Fleet,
        window: Window,
        clients: Clients,
        period: float | None,
    ) -> None:
        self._store, self._capacities, self._activities = store, capacities, record
        self._fleet, self._window, self._clients, self._period = fleet, window, clients, period
        self._policies: dict[str, _Policy] = {}
        self._going_on: dict[str, tuple[dict[str, Any], int]] = {}  # by the target's ARN: activity, count
        self._periodic = Periodic(self._look_around, (period or _HIGH_RESOLUTION) / _LOOKS)

    def start(self) -> None:
        """From now on."""
        self._periodic.begin()

    async def close(self) -> None:
        """No more."""
        await self._periodic.end()

    async def _look_around(self) -> None:
        for target in self._store.all(Kind.SCALABLE_TARGET):
            try:
                await self._look(target)
            except Exception:
                logger.exception("%s cannot be scaled: a fault of the emulator", target.name)

    async def _look(self, target: Record) -> None:
        resource, dimension = target.document["ResourceId"], target.document["ScalableDimension"]
        capacity = self._capacities.find(resource, dimension)
        if capacity is None:  # deleted; Application Auto Scaling forgets it, too
            remove_target(self._store, target)
            return
        policies = policies_of(self._store, target)
        self._sample(capacity, policies)
        if capacity.busy:
            return
        self._finish(target, capacity)
        least, most = target.document["MinCapacity"], target.document["MaxCapacity"]
        if not least <= capacity.count <= most:
            bound, limit = ("minimum", least) if capacity.count < least else ("maximum", most)
            self._set(target, capacity, limit, f"{bound} capacity was set to {limit}")
            return
        wishes = [wish for policy in policies if (wish := await self._wish(capacity, policy)) is not None]
        capacity = self._capacities.find(resource, dimension)  # it may have changed while alarms were looked at
        if wishes and capacity is not None and not capacity.busy:
            wish = max(wishes, key=lambda each: each.count)  # several policies: the largest count
            count = min(most, max(least, wish.count))
            suspended = target.document["SuspendedState"]
            way = "In" if count < capacity.count else "Out"
            if count != capacity.count and not suspended.get(f"DynamicScaling{way}Suspended"):
                wish.policy.scaled = time.monotonic()
                wish.policy.above = wish.policy.below = 0
                self._set(target, capacity, count, wish.cause)

    def _sample(self, capacity: Capacity, policies: list[Record]) -> None:
        for policy in policies:
            state = self._policies.setdefault(policy.arn, _Policy())
            state.concurrency.append(self._fleet.load(capacity.key, capacity.variant))

    def _set(self, target: Record, capacity: Capacity, count: int, cause: str) -> None:
        resource, dimension = target.document["ResourceId"], target.document["ScalableDimension"]
        activity = self._activities.begin(resource, dimension, capacity.what, count, cause)
        logger.info("%s: %s from %d to %d: %s", resource, capacity.what, capacity.count, count, cause)
        try:
            self._capacities.change(capacity, count)
            self._going_on[target.arn] = activity, count
        except AwsError as error:
            activities.end(activity, capacity.what, count, str(error))

    def _finish(self, target: Record, capacity: Capacity) -> None:
        """What was begun has ended: the resource is at rest again."""
        begun = self._going_on.pop(target.arn, None)
        if begun is not None:
            activity, count = begun
            reason = None
            if capacity.count != count:
                reason = capacity.record.document.get("FailureReason", "another change came between")
            activities.end(activity, capacity.what, count, reason)

    async def _wish(self, capacity: Capacity, policy: Record) -> _Wish | None:
        """What a policy wants, if it is time to ask it, and its cooldown is over."""
        state, now = self._policies.setdefault(policy.arn, _Policy()), time.monotonic()
        tracking = policy.document.get("TargetTrackingScalingPolicyConfiguration")
        predefined = ((tracking or {}).get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType", "")
        period = self._period or (_HIGH_RESOLUTION if predefined.endswith("HighResolution") else _PERIOD)
        if now - state.looked < period:
            return None
        state.looked = now
        if tracking is not None:
            value = await self._tracked_value(capacity, tracking, state, period)
            return self._track(capacity, policy, tracking, state, value)
        return await self._step(capacity, policy, state, period)

    def _track(
        self, capacity: Capacity, policy: Record, config: Mapping[str, Any], state: _Policy, value: float | None
    ) -> _Wish:
        """Nothing changes before the metric has been off its target for some periods in a row."""
        keep = _Wish(capacity.count, "", state)
        if value is None:
            return keep
        count = scaling_policies.tracked(capacity.count, value, config["TargetValue"])
        state.above = state.above + 1 if count > capacity.count else 0
        state.below = state.below + 1 if count < capacity.count else 0
        waited = time.monotonic() - state.scaled
        cause = (
            f"monitor alarm TargetTracking-{policy.document['ResourceId']}-Alarm{{}} in state ALARM triggered policy "
        )
        cause += policy.document["PolicyName"]
        if state.above >= OUT_PERIODS and waited >= config.get("ScaleOutCooldown", COOLDOWN):
            return _Wish(count, cause.format("High"), state)
        if (
            state.below >= IN_PERIODS
            and waited >= config.get("ScaleInCooldown", COOLDOWN)
            and not config.get("DisableScaleIn")
        ):
            return _Wish(count, cause.format("Low"), state)
        return keep

    async def _tracked_value(
        self, capacity: Capacity, config: Mapping[str, Any], state: _Policy, period: float
    ) -> float | None:
        own = config.get("CustomizedMetricSpecification")
        if own is not None:
            return await self._metric(capacity.region, own, own["Statistic"], period, 0)
        metric = config["PredefinedMetricSpecification"]["PredefinedMetricType"]
        if metric in INVOCATIONS:  # per minute
            return self._window(capacity.dimensions, INVOCATIONS[metric], period, 0).total * 60 / period
        return sum(state.concurrency) / max(1, len(state.concurrency))

    async def _step(self, capacity: Capacity, policy: Record, state: _Policy, period: float) -> _Wish | None:
        config = policy.document["StepScalingPolicyConfiguration"]
        if time.monotonic() - state.scaled < config.get("Cooldown", 0):
            return None
        found = await self._clients.call("cloudwatch", capacity.region, "describe_alarms", ActionPrefix=policy.arn)
        for alarm in found.get("MetricAlarms", ()):
            if not alarm.get("ActionsEnabled", True) or "Statistic" not in alarm:  # over an expression
                continue
            values = [
                await self._metric(capacity.region, alarm, alarm["Statistic"], period, number)
                for number in range(alarm["EvaluationPeriods"])
            ]
            beyond = scaling_policies.alarmed(alarm, values)
            if beyond is not None:
                count = scaling_policies.stepped(capacity.count, beyond, config)
                name = policy.document["PolicyName"]
                return _Wish(count, f"monitor alarm {alarm['AlarmName']} in state ALARM triggered policy {name}", state)
        return None

    async def _metric(
        self, region: str, metric: Mapping[str, Any], statistic: str, period: float, ago: int
    ) -> float | None:
        """Of the period that ended ``ago`` periods ago. Our own metrics are fresher here than in CloudWatch."""
        dimensions = {each["Name"]: each["Value"] for each in metric.get("Dimensions") or ()}
        if metric["Namespace"] == NAMESPACE:
            return self._window(dimensions, metric["MetricName"], period, ago).value(statistic)
        end = datetime.now(UTC) - timedelta(seconds=period * ago)
        found = await self._clients.call(
            "cloudwatch",
            region,
            "get_metric_statistics",
            Namespace=metric["Namespace"],
            MetricName=metric["MetricName"],
            Dimensions=metric.get("Dimensions") or [],
            StartTime=end - timedelta(seconds=period),
            EndTime=end,
            Period=max(60, int(period)),
            Statistics=[statistic],
        )
        points = sorted(found["Datapoints"], key=lambda point: point["Timestamp"])
        return float(points[-1][statistic]) if points else None
