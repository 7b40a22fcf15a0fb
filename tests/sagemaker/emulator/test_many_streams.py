"""Five hundred streams at a time through the real emulator: none lost, memory flat."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest
from botocore.eventstream import EventStreamBuffer
from tests.sagemaker.emulator.test_life_cycle import create, in_service
from tests.support.emulator import REPOSITORY, emulating

STREAMS, WAVES, PIECES = 500, 6, 10
CONTAINER = f"{sys.executable} {REPOSITORY / 'tests' / 'support' / 'echo_container.py'}"


async def read(session: aiohttp.ClientSession, url: str, number: int) -> None:
    """One stream: every piece of its own, in order."""
    pieces = [f"<{number}.{piece}>" for piece in range(PIECES)]
    async with session.post(url, data=json.dumps({"do": {"stream": pieces, "pause": 0.2}})) as answer:
        assert answer.status == 200, await answer.text()
        buffer = EventStreamBuffer()
        async for data in answer.content.iter_any():
            buffer.add_data(data)
    messages = list(buffer)
    assert {message.headers[":message-type"] for message in messages} == {"event"}
    assert b"".join(message.payload for message in messages).decode() == "".join(pieces)


async def wave(url: str) -> None:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(read(session, url, number) for number in range(STREAMS)))


@pytest.mark.full
async def test_none_of_500_is_lost_and_memory_stays(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", "--image", f"^echo={CONTAINER}") as emulator:
        name = await asyncio.to_thread(create, emulator, {"Image": "echo"})
        await asyncio.to_thread(in_service, emulator, name)
        process = psutil.Process(emulator.process.pid)
        resident = []
        for _ in range(WAVES):
            await wave(f"{emulator.url}/endpoints/{name}/invocations-response-stream")
            resident.append(process.memory_info().rss)
        assert resident[-1] < 1.1 * resident[2], resident
