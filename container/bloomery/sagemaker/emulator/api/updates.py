"""Changes of an endpoint that serves: another configuration, other weights, other counts. No request is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import deployment_configs, specs, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call, find
from bloomery.sagemaker.emulator.api.endpoints import Endpoints, spec_of
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.aws.alarms import Alarming
from bloomery.sagemaker.emulator.containers.rollout import Counts, Plan, RollbackFailure, roll_out
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Fleet, VariantSpec

logger = logging.getLogger(__name__)
_UPDATABLE = ("InService", "UpdateRollbackFailed")


class Updates:
    """UpdateEndpoint and UpdateEndpointWeightsAndCapacities. The record of an endpoint holds what is asked for as
    ``Pending`` until it serves; a restart in between finds the old state."""

    def __init__(self, store: Store, fleet: Fleet, endpoints: Endpoints, alarming: Alarming) -> None:
        self._store, self._fleet, self._endpoints, self._alarming = store, fleet, endpoints, alarming

    async def update(self, call: Call) -> dict[str, Any]:
        """UpdateEndpoint: answers at once, and rolls the configuration out."""
        given = call.parameters
        record = self._updatable(call)
        config = find(self._store, call, Kind.ENDPOINT_CONFIG, given["EndpointConfigName"])
        old = specs.from_document(record.document["Spec"])
        new = spec_of(self._store, call, config)
        if new.hosts_components != old.hosts_components:
            raise AwsError(words.OTHER_KIND.format(arn=record.arn))
        excluded = {each["VariantPropertyType"] for each in given.get("ExcludeRetainedVariantProperties") or ()}
        if given.get("RetainAllVariantProperties"):
            new = _retained(old, new, excluded)
        elif excluded:
            raise AwsError(words.NOTHING_RETAINED.format())
        deployment = given.get("DeploymentConfig")
        if deployment is None and given.get("RetainDeploymentConfig"):
            deployment = record.document.get("LastDeploymentConfig")
        deployment_configs.check(deployment or {}, new)
        self._endpoints.admission.endpoint(call.operation, new, old)
        now = time.time()
        pending = {
            "EndpointConfigName": config.name,
            "Spec": asdict(new),
            "Config": dict(config.document),
            "DeploymentConfig": deployment,
            "StartTime": now,
            "Since": now,
            "Status": "Creating",
            "Counts": {},
        }
        mixed = record.status != "InService"
        record = self._store.change(record, "Updating", FailureReason=None, LastLines=None, Pending=pending)
        self._endpoints.lives.run(record, self._roll_out(record, Plan.of(old, new, deployment), mixed))
        return {"EndpointArn": record.arn}

    async def weigh(self, call: Call) -> dict[str, Any]:
        """UpdateEndpointWeightsAndCapacities: weights move at once, counts when instances are healthy."""
        record = self._updatable(call)
        weights: dict[str, float] = {}
        counts: dict[str, int] = {}
        config = dict(record.document["Config"])
        wishes = call.parameters["DesiredWeightsAndCapacities"]
        _check_names(record, [each["VariantName"] for each in wishes])
        for each in wishes:
            name = each["VariantName"]
            if "DesiredWeight" in each:
                weights[name] = float(each["DesiredWeight"])
            if "DesiredInstanceCount" in each:
                counts[name] = int(each["DesiredInstanceCount"])
            if serverless := each.get("ServerlessUpdateConfig"):
                config["ProductionVariants"] = _with_serverless(config["ProductionVariants"], name, serverless)
        self.change(record, weights, counts, config)
        return {"EndpointArn": record.arn}

    def change(
        self,
        record: Record,
        weights: Mapping[str, float],
        counts: Mapping[str, int],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin to give an endpoint other weights and counts, by variant; it is Updating until it has them.

        AwsError when that cannot be, or something else is going on.
        """
        _check_updatable(record)
        if record.status != "InService":
            raise AwsError(words.MIXED.format(arn=record.arn))
        old = specs.from_document(record.document["Spec"])
        _check_names(record, [*weights, *counts])
        _check_change(old, weights, counts)
        new = _changed(old, weights, counts)
        self._endpoints.admission.endpoint("UpdateEndpointWeightsAndCapacities", new, old)
        pending = {"Spec": asdict(new), "StartTime": time.time()}
        changes = {"Config": dict(config)} if config else {}
        record = self._store.change(record, "Updating", FailureReason=None, LastLines=None, Pending=pending, **changes)
        self._fleet.weigh(record.name, weights)
        self._endpoints.lives.run(record, self._resize(record, old, new))

    def _updatable(self, call: Call) -> Record:
        record = find(self._store, call, Kind.ENDPOINT, call.parameters["EndpointName"])
        _check_updatable(record)
        return record

    async def _roll_out(self, record: Record, plan: Plan, mixed: bool) -> None:
        pending = record.document["Pending"]
        alarms = self._alarming(plan.old.region, deployment_configs.alarms(pending["DeploymentConfig"]))

        def progress(status: str, instances: Counts) -> None:
            now = {"Status": status, "Since": time.time(), "Counts": dict(instances)}
            self._endpoints.lives.note(record, Pending={**pending, **now})

        try:
            if mixed:  # an earlier update ended half-way: what it left goes first
                await self._fleet.withdraw(record.name)
            await roll_out(plan, self._fleet, alarms, self._endpoints.lives.phase(record), progress)
        except DeploymentFailure as failure:
            status = "UpdateRollbackFailed" if isinstance(failure, RollbackFailure) else "InService"
            self._endpoints.lives.settle(record, status, str(failure), Pending=None)
        except Exception:  # out of the roll-back, or while the old instances end
            logger.exception("the update of %s is stuck: a fault of the emulator", record.name)
            self._endpoints.lives.settle(record, "Failed", words.INTERNAL.format(), Pending=None)
        else:
            done = {name: pending[name] for name in ("EndpointConfigName", "Spec", "Config")}
            last = pending["DeploymentConfig"]
            self._endpoints.lives.settle(record, "InService", None, **done, LastDeploymentConfig=last, Pending=None)
            logger.info("endpoint %s: serves %s", record.name, pending["EndpointConfigName"])

    async def _resize(self, record: Record, old: EndpointSpec, new: EndpointSpec) -> None:
        before = {variant.name: variant for variant in old.variants}
        resized = [each for each in new.variants if each.instance_count != before[each.name].instance_count]
        reason = None
        if resized:
            self._endpoints.lives.phase(record)("changing the number of instances")
        scaled = await asyncio.gather(*(self._scale(record, each) for each in resized), return_exceptions=True)
        failures = [result for result in scaled if isinstance(result, Exception)]
        if failures:
            reason = str(failures[0])
            if not isinstance(failures[0], DeploymentFailure):
                logger.error("endpoint %s cannot be changed", record.name, exc_info=failures[0])
                reason = words.INTERNAL.format()
            rolling = self._endpoints.lives.note(record, "RollingBack")
            if rolling is None:
                return
            record = rolling
            self._fleet.weigh(record.name, {each.name: each.weight for each in old.variants})
            await asyncio.gather(*(self._scale(record, before[each.name]) for each in resized), return_exceptions=True)
        spec = asdict(old if failures else new)
        self._endpoints.lives.settle(record, "InService", reason, Spec=spec, Pending=None)

    async def _scale(self, record: Record, variant: VariantSpec) -> None:
        await self._fleet.scale(record.name, variant.name, variant.instance_count)


def _check_updatable(record: Record) -> None:
    if record.status == "Failed":
        raise AwsError(words.ONLY_DELETE.format(arn=record.arn))
    if record.status not in _UPDATABLE:
        raise AwsError(words.IN_PROGRESS.format(arn=record.arn))


def _check_names(record: Record, names: Iterable[str]) -> None:
    known = {variant["name"] for variant in record.document["Spec"]["variants"]}
    if unknown := [name for name in names if name not in known]:
        config = record.document["EndpointConfigName"]
        raise AwsError(words.NO_SUCH_VARIANTS.format(names=", ".join(unknown), config=config))


def _check_change(old: EndpointSpec, weights: Mapping[str, float], counts: Mapping[str, int]) -> None:
    for variant in _changed(old, weights, counts).variants:
        if variant.instance_count == 0 and old.async_output is None and variant.container is not None:
            raise AwsError(words.NO_INSTANCES_LEFT.format(variant=variant.name))
    if sum(variant.weight for variant in _changed(old, weights, counts).variants) <= 0:
        raise AwsError(words.NO_WEIGHT_LEFT.format())


def _changed(spec: EndpointSpec, weights: Mapping[str, float], counts: Mapping[str, int]) -> EndpointSpec:
    variants = tuple(
        replace(
            each,
            weight=weights.get(each.name, each.weight),
            instance_count=counts.get(each.name, each.instance_count),
        )
        for each in spec.variants
    )
    return replace(spec, variants=variants)


def _retained(old: EndpointSpec, new: EndpointSpec, excluded: Collection[str]) -> EndpointSpec:
    """``new`` with the weights and counts of the variants that ``old`` has, too, but for what is ``excluded``."""
    kept = {variant.name: variant for variant in old.variants if variant.name in {each.name for each in new.variants}}
    weights = {} if "DesiredWeight" in excluded else {name: variant.weight for name, variant in kept.items()}
    counts = {} if "DesiredInstanceCount" in excluded else {name: each.instance_count for name, each in kept.items()}
    return _changed(new, weights, counts)


def _with_serverless(
    variants: Sequence[Mapping[str, Any]], name: str, changes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [
        {**each, "ServerlessConfig": {**each["ServerlessConfig"], **changes}}
        if each["VariantName"] == name and "ServerlessConfig" in each
        else dict(each)
        for each in variants
    ]
