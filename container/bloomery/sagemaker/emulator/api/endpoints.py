"""Endpoints: from Creating to InService or Failed, and back to nothing.

What an endpoint is made of is fixed when it is created: its model and its configuration may be deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict
from typing import Any

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.api import deployment_configs, listing, specs, words
from bloomery.sagemaker.emulator.api.admission import Admission
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call, create, find
from bloomery.sagemaker.emulator.api.endpoint_view import describe
from bloomery.sagemaker.emulator.api.lives import Lives
from bloomery.sagemaker.emulator.api.store import Kind, Record, Store
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Fleet

logger = logging.getLogger(__name__)


class Endpoints:
    """The operations on endpoints, and the one owner of their lives."""

    def __init__(self, store: Store, fleet: Fleet, admission: Admission) -> None:
        self._store, self._fleet, self.admission = store, fleet, admission
        self.lives = Lives(store, lambda record, count: fleet.last_lines(record.name, count))

    def resume(self) -> None:
        """After a restart: what served or was about to is started anew, what was being deleted is gone."""
        for record in self._store.all(Kind.ENDPOINT):
            if record.status == "Deleting":
                self._store.remove(record)
            elif record.status != "Failed":
                # An update that was on its way is forgotten: what served before serves again.
                self._launch(self._store.change(record, "Creating", Pending=None))

    async def close(self) -> None:
        """Stop deploying. What the store says stays as it is, so that ``resume`` finds it."""
        await self.lives.close()

    def all(self) -> list[tuple[Record, str]]:
        """Every endpoint with what it is at now ("downloading the model data"), the newest first."""
        records = sorted(self._store.all(Kind.ENDPOINT), key=lambda record: record.created, reverse=True)
        return [(record, self.lives.phase_of(record)) for record in records]

    async def create(self, call: Call) -> dict[str, Any]:
        """CreateEndpoint: answers at once, and deploys."""
        given = call.parameters
        config = find(self._store, call, Kind.ENDPOINT_CONFIG, given["EndpointConfigName"])
        spec = spec_of(self._store, call, config)
        document = {"EndpointConfigName": config.name, "Spec": asdict(spec), "Config": dict(config.document)}
        if deployment := given.get("DeploymentConfig"):
            deployment_configs.check(deployment, spec)
            document["LastDeploymentConfig"] = deployment
        self.admission.endpoint(call.operation, spec)
        record = create(self._store, call, Kind.ENDPOINT, spec.name, document, "Creating")
        self._launch(record)
        return {"EndpointArn": record.arn}

    async def describe(self, call: Call) -> dict[str, Any]:
        """DescribeEndpoint."""
        return describe(find(self._store, call, Kind.ENDPOINT, call.parameters["EndpointName"]))

    async def list(self, call: Call) -> dict[str, Any]:
        """ListEndpoints."""
        shown, more = listing.page(self._store.all(Kind.ENDPOINT), call.parameters)
        endpoints = [
            {
                "EndpointName": each.name,
                "EndpointArn": each.arn,
                "CreationTime": each.created,
                "LastModifiedTime": each.modified,
                "EndpointStatus": each.status,
            }
            for each in shown
        ]
        return {"Endpoints": endpoints, **more}

    async def delete(self, call: Call) -> None:
        """DeleteEndpoint: answers at once, and ends its containers; until they are gone it is Deleting."""
        record = find(self._store, call, Kind.ENDPOINT, call.parameters["EndpointName"])
        if record.status == "Deleting":
            return
        components = self._store.all(Kind.INFERENCE_COMPONENT)
        if names := [each.name for each in components if each.document["EndpointArn"] == record.arn]:
            raise AwsError(words.HAS_COMPONENTS.format(arn=record.arn, names=", ".join(sorted(names))))
        record = self._store.change(record, "Deleting")
        self.lives.run(record, self._delete(record, self.lives.cancel(record)))

    def _launch(self, record: Record) -> None:
        self.lives.run(record, self._deploy(record))

    async def _deploy(self, record: Record) -> None:
        started = time.monotonic()
        try:
            await self._fleet.start(specs.from_document(record.document["Spec"]), self.lives.phase(record))
        except DeploymentFailure as failure:
            self.lives.settle(record, "Failed", str(failure))
        except Exception:
            logger.exception("endpoint %s could not be deployed: a fault of the emulator", record.name)
            try:
                await self._fleet.stop(record.name)
            finally:
                self.lives.settle(record, "Failed", words.INTERNAL.format())
        else:
            self.lives.settle(record, "InService", None)
            logger.info("endpoint %s: InService (%.1f s)", record.name, time.monotonic() - started)

    async def _delete(self, record: Record, deploying: asyncio.Task[None] | None) -> None:
        if deploying is not None:
            await asyncio.wait({deploying})
        self.lives.phase(record)("stopping")
        try:
            await self._fleet.stop(record.name)
        except Exception:
            logger.exception("endpoint %s could not be stopped: a fault of the emulator", record.name)
            self.lives.settle(record, "Failed", words.INTERNAL.format())
            return
        self.lives.forget(record)
        self._store.remove(record)
        logger.info("endpoint %s: deleted", record.name)


def spec_of(store: Store, call: Call, config: Record) -> EndpointSpec:
    """What an endpoint of that configuration runs, as its models are now."""
    name = call.parameters["EndpointName"]
    models = [
        find(store, call, Kind.MODEL, variant["ModelName"]) if "ModelName" in variant else None
        for variant in config.document["ProductionVariants"]
    ]
    return specs.endpoint(name, call.arn(Kind.ENDPOINT, name), config, models)
