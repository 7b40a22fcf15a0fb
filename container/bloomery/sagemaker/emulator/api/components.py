"""Inference components: models with resources of their own, whose copies run on the instances of an endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import component_specs, deployment_configs, listing, specs, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call, create, find
from bloomery.sagemaker.emulator.api.component_view import describe, summary
from bloomery.sagemaker.emulator.api.lives import Lives
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.aws.alarms import Alarming
from bloomery.sagemaker.emulator.containers.machines import Machines
from bloomery.sagemaker.emulator.containers.rollout import Plan, RollbackFailure, roll_out
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Fleet, component_key
from bloomery.sagemaker.emulator.faults import Faults

logger = logging.getLogger(__name__)
_KIND = Kind.INFERENCE_COMPONENT


class Components:
    """The operations on inference components, and the one owner of their life."""

    def __init__(self, store: Store, fleet: Fleet, alarming: Alarming, faults: Faults) -> None:
        self._store, self._fleet, self._alarming = store, fleet, alarming
        self._machines = Machines(store, faults)
        self._lives = Lives(store, lambda record, count: fleet.last_lines(component_key(record.name), count))

    def resume(self) -> None:
        """After a restart: what served or was about to is started anew, what was being deleted is gone."""
        for record in self._store.all(_KIND):
            if record.status == "Deleting":
                self._store.remove(record)
            elif record.status != "Failed":
                record = self._store.change(record, "Creating", Pending=None)
                self._lives.run(record, self._deploy(record))

    async def close(self) -> None:
        """Stop deploying; the store stays as it is."""
        await self._lives.close()

    def of(self, endpoint: Record) -> list[tuple[Record, str]]:
        """Those of an endpoint by name, each with what it is at now."""
        records = [each for each in self._store.all(_KIND) if each.document["EndpointArn"] == endpoint.arn]
        return [(each, self._lives.phase_of(each)) for each in sorted(records, key=lambda each: each.name)]

    async def create(self, call: Call) -> dict[str, Any]:
        """CreateInferenceComponent: answers at once, and starts the copies."""
        given = call.parameters
        endpoint = self._endpoint(call, given["EndpointName"])
        variant = component_specs.variant_of(endpoint, given["VariantName"])
        chosen = component_specs.chosen(given, variant)
        copies = given["RuntimeConfig"]["CopyCount"]
        name = given["InferenceComponentName"]
        spec = component_specs.component(endpoint, variant, name, chosen, copies, self._model(call, chosen))
        document = {
            "EndpointName": endpoint.name,
            "EndpointArn": endpoint.arn,
            "VariantName": variant.name,
            "Specification": dict(chosen),
            "Copies": copies,
            "Spec": asdict(spec),
        }
        record = create(self._store, call, _KIND, name, document, "Creating")
        self._lives.run(record, self._deploy(record))
        return {"InferenceComponentArn": record.arn}

    async def describe(self, call: Call) -> dict[str, Any]:
        """DescribeInferenceComponent."""
        return describe(self._find(call))

    async def list(self, call: Call) -> dict[str, Any]:
        """ListInferenceComponents."""
        given = call.parameters
        chosen = [
            record
            for record in self._store.all(_KIND)
            if given.get("EndpointNameEquals", record.document["EndpointName"]) == record.document["EndpointName"]
            and given.get("VariantNameEquals", record.document["VariantName"]) == record.document["VariantName"]
        ]
        shown, more = listing.page(chosen, given)
        return {"InferenceComponents": [summary(each) for each in shown], **more}

    async def set_copies(self, call: Call) -> dict[str, Any]:
        """UpdateInferenceComponentRuntimeConfig."""
        record = self._find(call)
        self.scale(record, call.parameters["DesiredRuntimeConfig"]["CopyCount"])
        return {"InferenceComponentArn": record.arn}

    async def delete(self, call: Call) -> None:
        """DeleteInferenceComponent: answers at once, and ends its copies."""
        record = self._find(call)
        if record.status == "Deleting":
            return
        record = self._store.change(record, "Deleting")
        self._lives.run(record, self._delete(record, self._lives.cancel(record)))

    async def update(self, call: Call) -> dict[str, Any]:
        """UpdateInferenceComponent: answers at once, and rolls the specification out without losing a request."""
        given, record = call.parameters, self._find(call)
        copies = (given.get("RuntimeConfig") or {}).get("CopyCount", record.document["Copies"])
        if "Specification" not in given and "Specifications" not in given:
            self.scale(record, copies)
            return {"InferenceComponentArn": record.arn}
        endpoint = self._endpoint(call, record.document["EndpointName"])
        variant = component_specs.variant_of(endpoint, record.document["VariantName"])
        chosen = component_specs.chosen(given, variant)
        spec = component_specs.component(endpoint, variant, record.name, chosen, copies, self._model(call, chosen))
        pending = {
            "Copies": copies,
            "Specification": dict(chosen),
            "Spec": asdict(spec),
            "DeploymentConfig": given.get("DeploymentConfig"),
        }
        record = self._begin(record, pending)
        self._lives.run(record, self._roll_out(record))
        return {"InferenceComponentArn": record.arn}

    def scale(self, record: Record, copies: int) -> None:
        """Begin to have so many copies; it is Updating until it has them. AwsError when that cannot be."""
        record = self._begin(record, {"Copies": copies})
        self._lives.run(record, self._scale(record, copies))

    def _begin(self, record: Record, pending: Mapping[str, Any]) -> Record:
        """What is asked for is pending until it serves; a restart in between finds the old state."""
        if record.status == "Failed":
            raise AwsError(words.COMPONENT_FAILED.format(arn=record.arn))
        if record.status != "InService":
            raise AwsError(words.COMPONENT_BUSY.format(arn=record.arn))
        return self._store.change(record, "Updating", FailureReason=None, LastLines=None, Pending=dict(pending))

    def _find(self, call: Call) -> Record:
        return find(self._store, call, _KIND, call.parameters["InferenceComponentName"])

    def _endpoint(self, call: Call, name: str) -> EndpointSpec:
        """The endpoint, which must be able to have components now."""
        record = find(self._store, call, Kind.ENDPOINT, name)
        spec = specs.from_document(record.document["Spec"])
        if not spec.hosts_components:
            raise AwsError(words.NO_COMPONENTS_HERE.format())
        if record.status != "InService":
            raise AwsError(words.ENDPOINT_NOT_READY.format(arn=record.arn, status=record.status))
        return spec

    def _model(self, call: Call, chosen: Mapping[str, Any]) -> Record | None:
        """The model that a specification names."""
        return find(self._store, call, Kind.MODEL, chosen["ModelName"]) if "ModelName" in chosen else None

    async def _deploy(self, record: Record) -> None:
        """Start all copies. What fails is Failed, and nothing of it runs."""
        key = component_key(record.name)
        try:
            self._machines.fit(record, record.document["Copies"])
            await self._fleet.start(specs.from_document(record.document["Spec"]), self._lives.phase(record))
        except DeploymentFailure as failure:
            self._lives.settle(record, "Failed", str(failure), Placed=0)
        except Exception:
            logger.exception("inference component %s could not be deployed: a fault of the emulator", record.name)
            try:
                await self._fleet.stop(key)
            finally:
                self._lives.settle(record, "Failed", words.INTERNAL.format(), Placed=0)
        else:
            self._lives.settle(record, "InService", None)
        self._machines.release(record)

    async def _scale(self, record: Record, copies: int) -> None:
        """The copies that there were stay when more cannot be had."""
        reason = None
        self._lives.phase(record)(f"changing the number of copies to {copies}")
        try:
            self._machines.fit(record, copies)
            await self._fleet.scale(component_key(record.name), record.document["VariantName"], copies)
        except DeploymentFailure as failure:
            reason = str(failure)
        except Exception:
            logger.exception("inference component %s cannot be scaled: a fault of the emulator", record.name)
            reason = words.INTERNAL.format()
        there = record.document["Copies"] if reason else copies
        spec = component_specs.with_copies(record.document["Spec"], there)
        self._lives.settle(record, "InService", reason, Copies=there, Placed=there, Spec=spec, Pending=None)
        self._machines.release(record)

    async def _roll_out(self, record: Record) -> None:
        """The copies of the old specification serve until those of the new one do, and again when those fail."""
        pending = record.document["Pending"]
        old, new = (specs.from_document(each["Spec"]) for each in (record.document, pending))
        deployment = component_specs.deployment(pending["DeploymentConfig"])
        alarms = self._alarming(old.region, deployment_configs.alarms(deployment))
        try:
            self._machines.fit(record, pending["Copies"], pending["Specification"])
            plan = Plan.of(old, new, deployment)
            await roll_out(plan, self._fleet, alarms, self._lives.phase(record), lambda status, there: None)
        except DeploymentFailure as failure:
            status = "Failed" if isinstance(failure, RollbackFailure) else "InService"
            there = record.document["Copies"]
            self._lives.settle(record, status, str(failure), Placed=there, Pending=None)
        except Exception:
            logger.exception("inference component %s is stuck: a fault of the emulator", record.name)
            self._lives.settle(record, "Failed", words.INTERNAL.format(), Pending=None)
        else:
            done = {name: pending[name] for name in ("Copies", "Specification", "Spec")}
            last = pending["DeploymentConfig"]
            self._lives.settle(
                record, "InService", None, **done, Placed=pending["Copies"], LastDeploymentConfig=last, Pending=None
            )
            logger.info("inference component %s: updated", record.name)
        self._machines.release(record)

    async def _delete(self, record: Record, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        self._lives.phase(record)("stopping")
        try:
            await self._fleet.stop(component_key(record.name))
        except Exception:
            logger.exception("inference component %s could not be stopped: a fault of the emulator", record.name)
            self._lives.settle(record, "Failed", words.INTERNAL.format())
            return
        self._lives.forget(record)
        self._store.remove(record)
        self._machines.release(record)
        logger.info("inference component %s: deleted", record.name)
