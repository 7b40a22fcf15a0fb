"""The containers' output, into CloudWatch Logs under SageMaker's names: batched, bounded, never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field

from bloomery.sagemaker.emulator.aws.clients import Clients
from bloomery.sagemaker.emulator.aws.periodic import Periodic

log = logging.getLogger(__name__)

_INTERVAL = 0.5  # seconds between two writes
_HELD = 10_000  # lines of one stream that wait; more are counted and left out
_BATCH = 1000  # CloudWatch Logs takes 10,000 events or 1 MiB
_LONGEST = 8192
_KEPT = 200


def group_of(key: str) -> str:
    """The log group of an endpoint or an inference component."""
    _, slash, component = key.partition("/")
    return f"/aws/sagemaker/InferenceComponents/{component}" if slash else f"/aws/sagemaker/Endpoints/{key}"


@dataclass
class _Stream:
    waiting: deque[tuple[int, str]] = field(default_factory=deque)  # milliseconds since 1970, line
    dropped: int = 0
    exists: bool = False


class Logs:
    """Lines come in without waiting; a task of its own hands them on."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._streams: dict[tuple[str, str, str], _Stream] = {}
        self._last: dict[str, deque[str]] = {}
        self._periodic = Periodic(self.flush, _INTERVAL)
        self._flushing = asyncio.Lock()

    def write(self, region: str, endpoint: str, stream: str, line: str) -> None:
        """One line of the stream ``variant/instance``."""
        self._last.setdefault(endpoint, deque(maxlen=_KEPT)).append(line)
        state = self._streams.setdefault((region, endpoint, stream), _Stream())
        if len(state.waiting) < _HELD:
            state.waiting.append((int(time.time() * 1000), line[:_LONGEST] or " "))  # an event may not be empty
        else:
            state.dropped += 1
        self._periodic.begin()

    def last(self, endpoint: str, count: int) -> list[str]:
        """The last lines of an endpoint, all its streams together."""
        return list(self._last.get(endpoint, ()))[-count:]

    async def forget(self, endpoint: str) -> None:
        """The endpoint is gone: hand on what is left. CloudWatch keeps its logs, as AWS does."""
        await self.flush()
        self._last.pop(endpoint, None)
        for key in [key for key in self._streams if key[1] == endpoint and not self._streams[key].waiting]:
            del self._streams[key]

    async def flush(self) -> None:
        """Hand on everything that has come in. What cannot be delivered is dropped, and said."""
        async with self._flushing:  # two at once would mix up the order
            for (region, endpoint, stream), state in list(self._streams.items()):
                while state.waiting or state.dropped:
                    try:
                        await self._put(region, group_of(endpoint), stream, state)
                    except Exception as error:  # botocore's many; logs must not end anything
                        log.warning("%s: log lines of %s were lost: %s", endpoint, stream, error)
                        state.waiting.clear()
                        state.dropped = 0

    async def close(self) -> None:
        """Flush for the last time."""
        await self._periodic.end()
        await self.flush()

    async def _put(self, region: str, group: str, stream: str, state: _Stream) -> None:
        if not state.exists:
            await self._create(region, group, stream)
            state.exists = True
        batch = [state.waiting.popleft() for _ in range(min(_BATCH, len(state.waiting)))]
        if state.dropped and not state.waiting:
            batch.append((int(time.time() * 1000), f"[{state.dropped} lines left out: they came faster than logs go]"))
            state.dropped = 0
        events = [{"timestamp": at, "message": line} for at, line in batch]
        call = self._clients.call
        await call("logs", region, "put_log_events", logGroupName=group, logStreamName=stream, logEvents=events)

    async def _create(self, region: str, group: str, stream: str) -> None:
        for operation, names in (
            ("create_log_group", {"logGroupName": group}),
            ("create_log_stream", {"logGroupName": group, "logStreamName": stream}),
        ):
            try:
                await self._clients.call("logs", region, operation, **names)
            except Exception as error:
                if "ResourceAlreadyExists" not in str(error):
                    raise
