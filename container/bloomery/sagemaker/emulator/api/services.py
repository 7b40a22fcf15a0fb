"""The AWS services that are ours, put together, and what they keep running."""

from __future__ import annotations

from functools import partial

from bloomery.sagemaker.emulator.account import prices, service_quotas
from bloomery.sagemaker.emulator.account.prices import Prices
from bloomery.sagemaker.emulator.account.service_quotas import ServiceQuotas
from bloomery.sagemaker.emulator.api import control
from bloomery.sagemaker.emulator.api.admission import Admission
from bloomery.sagemaker.emulator.api.components import Components
from bloomery.sagemaker.emulator.api.endpoints import Endpoints
from bloomery.sagemaker.emulator.api.json_api import JsonApi
from bloomery.sagemaker.emulator.api.lookup import ModelDataLookup
from bloomery.sagemaker.emulator.api.store import Store
from bloomery.sagemaker.emulator.api.updates import Updates
from bloomery.sagemaker.emulator.autoscaling import scaling
from bloomery.sagemaker.emulator.autoscaling.activities import Activities
from bloomery.sagemaker.emulator.autoscaling.capacities import Capacities
from bloomery.sagemaker.emulator.autoscaling.scaler import Scaler
from bloomery.sagemaker.emulator.autoscaling.scaling import Scaling
from bloomery.sagemaker.emulator.aws.alarms import Alarms
from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.deployment import Hosting, Surroundings


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
