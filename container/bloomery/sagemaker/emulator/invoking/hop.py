"""The hop from the runtime to a container: which headers cross it, and what becomes of a container's failures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.api.aws_error import AwsError
from bloomery.sagemaker.emulator.aws.logs import group_of
from bloomery.sagemaker.emulator.containers.instance import Instance
from bloomery.sagemaker.emulator.deployment import EndpointSpec

PRIVATE = "X-Amzn-SageMaker-"
# SageMaker strips every header but those of its API, and adds none that one should rely on.
_TO_CONTAINER = {
    "CustomAttributes": f"{PRIVATE}Custom-Attributes",
    "TargetModel": f"{PRIVATE}Target-Model",
    "InferenceId": f"{PRIVATE}Inference-Id",
    "SessionId": f"{PRIVATE}Session-Id",
}
_FROM_CONTAINER = tuple(f"{PRIVATE}{name}" for name in ("Custom-Attributes", "New-Session-Id", "Closed-Session-Id"))
_LONGEST_MESSAGE = 2048  # characters, by the service model


class ModelError(AwsError):
    """The container answered with an error, too late, or not at all. ``original``: its status, 0 without one."""

    def __init__(self, spec: EndpointSpec, stream: str, text: words.Words, original: int, message: str = "") -> None:
        side = "client" if 400 <= original < 500 else "server"
        group = group_of(spec.key)
        said = {"group": group, "account": spec.account, "region": spec.region, "side": side}
        super().__init__(text.format(**said, status=original, message=message), "ModelError", 424)
        self.original = original
        self.members = {
            "OriginalStatusCode": original,
            "OriginalMessage": message[:_LONGEST_MESSAGE],
            "LogStreamArn": f"arn:aws:logs:{spec.region}:{spec.account}:log-group:{group}:log-stream:{stream}",
        }


@dataclass
class Exchange:
    """What has come of a request so far. ``status``: the container's, 0 before it answers. Times in seconds."""

    model: float = 0.0  # that the container took
    first_byte: float | None = None  # of a stream
    status: int = 0
    content: bytes = b""


@dataclass(frozen=True)
class Answer:
    """A container's whole answer, which is no error."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "application/octet-stream")


def to_container(parameters: Mapping[str, Any]) -> dict[str, str]:
    """The headers that a container gets, given the parameters of the call."""
    return {
        "Content-Type": parameters.get("ContentType") or "application/octet-stream",
        "Accept": parameters.get("Accept") or "*/*",
        "User-Agent": "AHC/2.0",
        **{header: parameters[name] for name, header in _TO_CONTAINER.items() if name in parameters},
    }


def from_container(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that a client gets, besides those that depend on the operation."""
    return {name: headers[name] for name in _FROM_CONTAINER if name in headers}


async def ask(
    session: aiohttp.ClientSession,
    spec: EndpointSpec,
    instance: Instance,
    headers: Mapping[str, str],
    body: bytes,
    seconds: float,
    exchange: Exchange,
) -> Answer:
    """POST to /invocations and read the whole answer, within ``seconds``. Raises ModelError."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            async with session.post(f"{instance.url}/invocations", data=body, headers=headers) as answer:
                exchange.status = answer.status
                exchange.content = await answer.read()
                refuse_errors(spec, instance, answer.status, exchange.content)
                return Answer(answer.headers, exchange.content)
    except TimeoutError:
        raise ModelError(spec, instance.stream, words.MODEL_FAILED, 0, words.TOO_SLOW.text) from None
    except (aiohttp.ClientError, OSError) as error:
        raise connection_lost(spec, instance, exchange, error) from error
    finally:
        exchange.model = time.perf_counter() - began


def refuse_errors(spec: EndpointSpec, instance: Instance, status: int, content: bytes) -> None:
    """Raise ModelError unless ``status`` says success."""
    if not 200 <= status < 300:
        raise ModelError(spec, instance.stream, words.MODEL_FAILED, status, content.decode("utf-8", "replace"))


def connection_lost(spec: EndpointSpec, instance: Instance, exchange: Exchange, error: Exception) -> ModelError:
    """What a client is told when the container's connection breaks."""
    if exchange.status:
        return ModelError(spec, instance.stream, words.BODY_BROKE, exchange.status)
    message = words.CONNECTION_LOST.format(reason=str(error) or type(error).__name__)
    return ModelError(spec, instance.stream, words.MODEL_FAILED, 0, message)


def document(error: AwsError) -> bytes:
    """The body of an error answer of the runtime (rest-json)."""
    members = error.members if isinstance(error, ModelError) else {}
    return json.dumps({"Message": str(error)[:_LONGEST_MESSAGE], **members}).encode()
