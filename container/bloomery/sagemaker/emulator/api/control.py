"""The operations of SageMaker's control plane, and who performs them."""

from __future__ import annotations

from collections.abc import Mapping

from bloomery.sagemaker.emulator.api.components import Components
from bloomery.sagemaker.emulator.api.endpoint_configs import EndpointConfigs
from bloomery.sagemaker.emulator.api.endpoints import Endpoints
from bloomery.sagemaker.emulator.api.json_api import Operation
from bloomery.sagemaker.emulator.api.models import Lookup, Models
from bloomery.sagemaker.emulator.api.store import Store
from bloomery.sagemaker.emulator.api.tags import Tags
from bloomery.sagemaker.emulator.api.updates import Updates

PREFIX, SERVICE = "SageMaker.", "sagemaker"


def operations(
    store: Store, endpoints: Endpoints, updates: Updates, components: Components, lookup: Lookup
) -> Mapping[str, Operation]:
    """Those of hosting, by name."""
    models, configs, tags = Models(store, lookup), EndpointConfigs(store), Tags(store)
    return {
        "CreateModel": models.create,
        "DescribeModel": models.describe,
        "ListModels": models.list,
        "DeleteModel": models.delete,
        "CreateEndpointConfig": configs.create,
        "DescribeEndpointConfig": configs.describe,
        "ListEndpointConfigs": configs.list,
        "DeleteEndpointConfig": configs.delete,
        "CreateEndpoint": endpoints.create,
        "DescribeEndpoint": endpoints.describe,
        "ListEndpoints": endpoints.list,
        "DeleteEndpoint": endpoints.delete,
        "UpdateEndpoint": updates.update,
        "UpdateEndpointWeightsAndCapacities": updates.weigh,
        "CreateInferenceComponent": components.create,
        "DescribeInferenceComponent": components.describe,
        "ListInferenceComponents": components.list,
        "UpdateInferenceComponent": components.update,
        "UpdateInferenceComponentRuntimeConfig": components.set_copies,
        "DeleteInferenceComponent": components.delete,
        "AddTags": tags.add,
        "ListTags": tags.list,
        "DeleteTags": tags.delete,
    }
