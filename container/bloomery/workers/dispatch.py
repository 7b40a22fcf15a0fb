"""How requests reach the ranks of a group: what every kind of dispatch offers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from bloomery.protocol import private
from bloomery.protocol.frames import Request, encode_request
from bloomery.settings.model import ModelSettings
from bloomery.workers import batch
from bloomery.workers.job import Job


class Dispatch(Protocol):
    """Built on the connected ranks of one launch; ``lost`` is called when they cannot go on."""

    @property
    def capacity(self) -> int:
        """How many jobs at once."""
        ...

    def begin(self, job: Job) -> None:
        """Hand the job to the ranks; ProtocolError: it fits no frame, and nothing was sent."""

    async def run(self) -> None:
        """Whatever has to go on between and beside jobs. WorkerError: the ranks are lost."""

    def check(self, job: Job) -> None:
        """Called every moment while the job is with the ranks. WorkerError: the ranks are lost."""


def frame(
    settings: ModelSettings, job: Job, seed: int | None, properties: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """The job's request frame: the request itself, or several joined into one, with what the server adds.

    ``seed`` is one for all ranks, or their sampling diverges.
    """
    request = batch.joined([call.request for call in job.calls]) if job.joined else job.calls[0].request
    together = request.properties.copy()
    together["handler"] = job.calls[0].function or settings.handler
    together[private.REQUEST_ID] = job.request_id
    if seed is not None:
        together[private.SEED] = str(seed)
    together.update(properties)
    return encode_request(Request(together, request.content))
