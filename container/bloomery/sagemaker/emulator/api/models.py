"""CreateModel and what goes with it: an image, its environment and where its data lies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bloomery.sagemaker.emulator.api import listing, rules, specs, words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.api.call import Call, create, find
from bloomery.sagemaker.emulator.api.store import Kind, Store
from bloomery.sagemaker.emulator.deployment import ModelData

# Whether there is anything at a ModelData, for who calls from a region.
Lookup = Callable[[ModelData, str], Awaitable[bool]]


class Models:
    """The operations on models."""

    def __init__(self, store: Store, lookup: Lookup) -> None:
        self._store, self._lookup = store, lookup

    async def create(self, call: Call) -> dict[str, Any]:
        """CreateModel. As SageMaker does, look for the data now: an absent archive is the most usual mistake."""
        given = call.parameters
        container = rules.containers(given)[0]
        data = specs.model_data(container)
        if data != ModelData() and not await self._lookup(data, call.region):
            raise AwsError(words.NO_MODEL_DATA.format(uri=data.archive or data.prefix))
        described = {"EnableNetworkIsolation": False, **given}
        described.pop("Tags", None)
        for name in ("PrimaryContainer", "Containers"):
            if name in given:
                each = [{"Mode": "SingleModel", **container} for container in rules.containers(given)]
                described[name] = each if name == "Containers" else each[0]
        record = create(self._store, call, Kind.MODEL, given["ModelName"], described)
        return {"ModelArn": record.arn}

    async def describe(self, call: Call) -> dict[str, Any]:
        """DescribeModel."""
        record = find(self._store, call, Kind.MODEL, call.parameters["ModelName"])
        return {**record.document, "ModelArn": record.arn, "CreationTime": record.created}

    async def list(self, call: Call) -> dict[str, Any]:
        """ListModels."""
        shown, more = listing.page(self._store.all(Kind.MODEL), call.parameters)
        models = [{"ModelName": each.name, "ModelArn": each.arn, "CreationTime": each.created} for each in shown]
        return {"Models": models, **more}

    async def delete(self, call: Call) -> None:
        """DeleteModel. Endpoints that serve it go on."""
        self._store.remove(find(self._store, call, Kind.MODEL, call.parameters["ModelName"]))
