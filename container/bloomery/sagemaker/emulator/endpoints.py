"""Endpoints: from Creating to InService or Failed, and back to nothing.

What an endpoint is made of is fixed when it is created: its model and its configuration may be deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator import deployment_configs, listing, specs, words
from bloomery.sagemaker.emulator.aws_error import AwsError
from bloomery.sagemaker.emulator.call import Call, create, find
from bloomery.sagemaker.emulator.deployment import EndpointSpec, Fleet
from bloomery.sagemaker.emulator.endpoint_view import describe
from bloomery.sagemaker.emulator.store import Kind, Record, Store

logger = logging.getLogger(__name__)
LINES = 40  # of its containers' output that a failed endpoint keeps


class Endpoints:
    """The operations on endpoints, and the one owner of their life."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store, self._fleet = store, fleet
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._phases: dict[str, str] = {}

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
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def all(self) -> list[tuple[Record, str]]:
        """Every endpoint with what it is at now ("downloading the model data"), the newest first."""
        records = sorted(self._store.all(Kind.ENDPOINT), key=lambda record: record.created, reverse=True)
        return [(record, self._phases.get(record.arn, "")) for record in records]

    async def create(self, call: Call) -> dict[str, Any]:
        """CreateEndpoint: answers at once, and deploys."""
        given = call.parameters
        config = find(self._store, call, Kind.ENDPOINT_CONFIG, given["EndpointConfigName"])
        spec = spec_of(self._store, call, config)
        document = {"EndpointConfigName": config.name, "Spec": asdict(spec), "Config": dict(config.document)}
        if deployment := given.get("DeploymentConfig"):
            deployment_configs.check(deployment, spec)
            document["LastDeploymentConfig"] = deployment
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
        deploying = self._tasks.get(record.arn)
        if deploying is not None:
            deploying.cancel()
        self.run(record, self._delete(record, deploying))

    def _launch(self, record: Record) -> None:
        self.run(record, self._deploy(record))

    def run(self, record: Record, work: Coroutine[Any, Any, None]) -> None:
        """Have ``work`` done for an endpoint; there is one such thing at a time, and a deletion cancels it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[record.arn] = task

        def done(_: asyncio.Task[None]) -> None:
            if self._tasks.get(record.arn) is task:
                del self._tasks[record.arn]

        task.add_done_callback(done)

    def phase(self, record: Record) -> Callable[[str], None]:
        """To be told what an endpoint is at now."""
        started = time.monotonic()

        def phase(text: str) -> None:
            self._phases[record.arn] = text
            logger.info("endpoint %s: %s (%.1f s)", record.name, text, time.monotonic() - started)

        return phase

    def note(self, record: Record, status: str | None = None, **document: Any) -> Record | None:
        """Within a phase of its life; None, and nothing, if another phase has begun meanwhile."""
        current = self._current(record)
        return current and self._store.change(current, status or current.status, **document)

    def settle(self, record: Record, status: str, reason: str | None, **document: Any) -> None:
        """The end of a phase of its life, unless another has begun meanwhile: a deletion is stronger than all."""
        current = self._current(record)
        if current is None:
            return
        self._phases.pop(record.arn, None)
        lines = None if reason is None else self._fleet.last_lines(record.name, LINES)
        self._store.change(current, status, FailureReason=reason, LastLines=lines, **document)
        if reason is not None:
            logger.warning("endpoint %s: %s: %s", record.name, status, reason)

    def _current(self, record: Record) -> Record | None:
        current = self._store.by_arn(record.arn)
        return current if current is not None and current.status == record.status else None

    async def _deploy(self, record: Record) -> None:
        started = time.monotonic()
        try:
            await self._fleet.start(specs.from_document(record.document["Spec"]), self.phase(record))
        except DeploymentFailure as failure:
            self.settle(record, "Failed", str(failure))
        except Exception:
            logger.exception("endpoint %s could not be deployed: a fault of the emulator", record.name)
            try:
                await self._fleet.stop(record.name)
            finally:
                self.settle(record, "Failed", words.INTERNAL.format())
        else:
            self.settle(record, "InService", None)
            logger.info("endpoint %s: InService (%.1f s)", record.name, time.monotonic() - started)

    async def _delete(self, record: Record, deploying: asyncio.Task[None] | None) -> None:
        if deploying is not None:
            await asyncio.wait({deploying})
        self._phases[record.arn] = "stopping"
        try:
            await self._fleet.stop(record.name)
        except Exception:
            logger.exception("endpoint %s could not be stopped: a fault of the emulator", record.name)
            self.settle(record, "Failed", words.INTERNAL.format())
            return
        self._phases.pop(record.arn, None)
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
