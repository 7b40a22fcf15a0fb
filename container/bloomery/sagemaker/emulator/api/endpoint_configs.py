"""CreateEndpointConfig and what goes with it: which models run on how many instances of what type."""

from __future__ import annotations

from typing import Any

from bloomery.sagemaker.emulator.api import listing
from bloomery.sagemaker.emulator.api.call import Call, create, find
from bloomery.sagemaker.emulator.api.store import Kind, Store


class EndpointConfigs:
    """The operations on endpoint configurations."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, call: Call) -> dict[str, Any]:
        """CreateEndpointConfig. The models must exist; what they are is looked up when an endpoint is created.

        Variants without a model are for inference components.
        """
        given = call.parameters
        for variant in given["ProductionVariants"]:
            if "ModelName" in variant:
                find(self._store, call, Kind.MODEL, variant["ModelName"])
        variants = [{"InitialVariantWeight": 1.0, **variant} for variant in given["ProductionVariants"]]
        described = {"EnableNetworkIsolation": False, **given, "ProductionVariants": variants}
        described.pop("Tags", None)
        record = create(self._store, call, Kind.ENDPOINT_CONFIG, given["EndpointConfigName"], described)
        return {"EndpointConfigArn": record.arn}

    async def describe(self, call: Call) -> dict[str, Any]:
        """DescribeEndpointConfig."""
        record = find(self._store, call, Kind.ENDPOINT_CONFIG, call.parameters["EndpointConfigName"])
        return {**record.document, "EndpointConfigArn": record.arn, "CreationTime": record.created}

    async def list(self, call: Call) -> dict[str, Any]:
        """ListEndpointConfigs."""
        shown, more = listing.page(self._store.all(Kind.ENDPOINT_CONFIG), call.parameters)
        configs = [
            {"EndpointConfigName": each.name, "EndpointConfigArn": each.arn, "CreationTime": each.created}
            for each in shown
        ]
        return {"EndpointConfigs": configs, **more}

    async def delete(self, call: Call) -> None:
        """DeleteEndpointConfig. Endpoints that were made from it go on."""
        self._store.remove(find(self._store, call, Kind.ENDPOINT_CONFIG, call.parameters["EndpointConfigName"]))
