"""One AWS service over HTTP: ``POST /`` with ``X-Amz-Target: <prefix>.<operation>``, JSON 1.1."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bloomery.sagemaker.emulator.api import call as calls
from bloomery.sagemaker.emulator.api import rules, validate, words
from bloomery.sagemaker.emulator.api.admission import Admission
from bloomery.sagemaker.emulator.api.aws_error import AwsError, answer, answer_error
from bloomery.sagemaker.emulator.api.call import Call
from bloomery.sagemaker.emulator.deployment import Surroundings

logger = logging.getLogger(__name__)
_LARGEST = 4 * 1024**2  # bytes; a request of these APIs describes things and holds none
Operation = Callable[[Call], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True)
class JsonApi:
    """Answers ``operations``, and refuses others in words. ``service``: its name in botocore."""

    prefix: str  # of X-Amz-Target, with its dot
    service: str
    operations: Mapping[str, Operation]
    admission: Admission
    around: Surroundings

    def takes(self, target: str) -> bool:
        """Whether a request is for this service."""
        return target.startswith(self.prefix)

    async def handle(self, http: web.Request) -> web.Response:
        """One request; errors as AWS's documents."""
        operation = http.headers["X-Amz-Target"].removeprefix(self.prefix)
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
        perform = self.operations.get(operation)
        if perform is None:
            known = ", ".join(sorted(self.operations))
            raise AwsError(
                words.UNKNOWN_OPERATION.format(operation=operation, known=known), "UnknownOperationException"
            )
        self.admission.call(operation)
        parameters = validate.check(operation, await _document(http), self.service)
        rules.check(operation, parameters)
        region = calls.region(http.headers.get("Authorization", ""), self.around.region)
        # Clients describe and list in loops.
        logger.log(logging.DEBUG if operation.startswith(("Describe", "List")) else logging.INFO, "%s", operation)
        return await perform(Call(operation, parameters, region, self.around.account))


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
