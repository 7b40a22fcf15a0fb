"""The AWS services that are ours, put together, and what they keep running."""

from __future__ import annotations

from functools import partial

from bloomery.sagemaker.emulator import control, prices, scaling, service_quotas
from bloomery.sagemaker.emulator.activities import Activities
from bloomery.sagemaker.emulator.admission import Admission
from bloomery.sagemaker.emulator.alarms import Alarms
from bloomery.sagemaker.emulator.capacities import Capacities
from bloomery.sagemaker.emulator.clients import Clients
from bloomery.sagemaker.emulator.components import Components
from bloomery.sagemaker.emulator.deployment import Hosting, Surroundings
from bloomery.sagemaker.emulator.endpoints import Endpoints
from bloomery.sagemaker.emulator.json_api import JsonApi
from bloomery.sagemaker.emulator.lookup import ModelDataLookup
from bloomery.sagemaker.emulator.prices import Prices
from bloomery.sagemaker.emulator.scaler import Scaler
from bloomery.sagemaker.emulator.scaling import Scaling
from bloomery.sagemaker.emulator.service_quotas import ServiceQuotas
from bloomery.sagemaker.emulator.store import Store
from bloomery.sagemaker.emulator.updates import Updates


class Services:
    """``apis`` answer requests; between ``resume`` and ``close`` endpoints and components live, and are scaled."""

    def __init__(self, store: Store, hosting: Hosting, clients: Clients, around: Surroundings) -> None:
        fleet, faults, alarming = hosting.fleet, hosting.faults, partial(Alarms, clients)
        admission = Admission(store, faults, around.tables)
        self.endpoints = Endpoints(store, fleet, admission)
        updates = Updates(store, fleet, self.endpoints, alarming)
        self.components = Components(store, fleet, alarming, faults)
        capacities, activities = Capacities(store, updates, self.components), Activities()
        self._scaler = Scaler(store, capacities, activities, fleet, hosting.window, clients, around.scaler_period)
        lookup = ModelDataLookup(clients)
        performed = (
            (
                control.PREFIX,
                control.SERVICE,
                control.operations(store, self.endpoints, updates, self.components, lookup),
            ),
            (scaling.PREFIX, scaling.SERVICE, Scaling(store, capacities, activities).operations()),
            (service_quotas.PREFIX, service_quotas.SERVICE, ServiceQuotas(around.tables).operations()),
            (prices.PREFIX, prices.SERVICE, Prices(around.tables).operations()),
        )
        self.apis = [JsonApi(prefix, name, operations, admission, around) for prefix, name, operations in performed]

    def resume(self) -> None:
        """After a restart: what served is started anew."""
        self.endpoints.resume()
        self.components.resume()
        self._scaler.start()

    async def close(self) -> None:
        """Stop deploying and scaling. What runs is the fleet's to end."""
        await self._scaler.close()
        await self.endpoints.close()
        await self.components.close()
