"""SageMaker's control plane over HTTP: ``POST /`` with ``X-Amz-Target: SageMaker.<operation>``, JSON 1.1."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from bloomery.sagemaker.emulator import call as calls
from bloomery.sagemaker.emulator import rules, validate, words
from bloomery.sagemaker.emulator.aws_error import AwsError, answer, answer_error
from bloomery.sagemaker.emulator.call import Call
from bloomery.sagemaker.emulator.components import Components
from bloomery.sagemaker.emulator.deployment import Surroundings
from bloomery.sagemaker.emulator.endpoint_configs import EndpointConfigs
from bloomery.sagemaker.emulator.endpoints import Endpoints
from bloomery.sagemaker.emulator.models import Lookup, Models
from bloomery.sagemaker.emulator.store import Store
from bloomery.sagemaker.emulator.tags import Tags
from bloomery.sagemaker.emulator.updates import Updates

logger = logging.getLogger(__name__)
TARGET = "SageMaker."
_LARGEST = 4 * 1024**2  # bytes; a request of this API describes things and holds none
Operation = Callable[[Call], Awaitable[Mapping[str, Any] | None]]


class Control:
    """Answers the operations of hosting, and refuses others in words."""

    def __init__(
        self,
        store: Store,
        endpoints: Endpoints,
        updates: Updates,
        components: Components,
        lookup: Lookup,
        around: Surroundings,
    ) -> None:
        self._around = around
        models, configs, tags = Models(store, lookup), EndpointConfigs(store), Tags(store)
        self._operations: dict[str, Operation] = {
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

    async def handle(self, http: web.Request) -> web.Response:
        """One request; errors as AWS's documents."""
        operation = http.headers["X-Amz-Target"].removeprefix(TARGET)
        try:
            result = await self._perform(operation, http)
        except AwsError as error:
            logger.info("%s refused: %s", operation, error)
            return answer_error(error)
        except Exception:
            logger.exception("%s failed inside the emulator", operation)
            return answer_error(AwsError(words.INTERNAL.format(), "InternalFailure", 500))
        if result is None:  # an operation without output has an empty body
            return web.Response(headers={"Content-Type": "application/x-amz-json-1.1"})
        return answer(result)

    async def _perform(self, operation: str, http: web.Request) -> Mapping[str, Any] | None:
        perform = self._operations.get(operation)
        if perform is None:
            known = ", ".join(sorted(self._operations))
            raise AwsError(
                words.UNKNOWN_OPERATION.format(operation=operation, known=known), "UnknownOperationException"
            )
        parameters = validate.check(operation, await _document(http))
        rules.check(operation, parameters)
        region = calls.region(http.headers.get("Authorization", ""), self._around.region)
        # Clients describe and list in loops.
        logger.log(logging.DEBUG if operation.startswith(("Describe", "List")) else logging.INFO, "%s", operation)
        return await perform(Call(operation, parameters, region, self._around.account))


async def _document(http: web.Request) -> object:
    body = b""
    async for chunk in http.content.iter_chunked(65536):
        body += chunk
        if len(body) > _LARGEST:
            raise AwsError(words.NOT_JSON.format(reason=f"it has over {_LARGEST} bytes"), "SerializationException")
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise AwsError(words.NOT_JSON.format(reason=error), "SerializationException") from error
