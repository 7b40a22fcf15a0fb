"""Clients of the emulated AWS. boto3 blocks, so calls run in threads of their own; it is imported at the first one."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from bloomery.sagemaker.emulator.deployment import Surroundings

_THREADS = 8


class Clients:
    """Knows nothing of the user's profiles, credentials and proxies: only what ``Surroundings`` says."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="aws")

    async def call(self, service: str, region: str, operation: str, **parameters: Any) -> Any:
        """``operation`` in boto3's spelling; raises what boto3 raises."""
        return await self.run(partial(self._call, service, region, operation, parameters))

    async def run(self, work: Any) -> Any:
        """``work()`` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """After the last call."""
        self._threads.shutdown(cancel_futures=True)
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def client(self, service: str, region: str) -> Any:
        """A boto3 client. Blocks while it is made."""
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._make(service, region)
            return self._clients[service, region]

    def _call(self, service: str, region: str, operation: str, parameters: dict[str, Any]) -> Any:
        return getattr(self.client(service, region), operation)(**parameters)

    def _make(self, service: str, region: str) -> Any:
        import boto3
        import botocore.session
        from botocore.config import Config

        around = self._around
        # (setting's name in a file, variable, default, conversion): without a variable the user's is not read.
        isolated = {
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
        session = boto3.session.Session(botocore_session=botocore.session.Session(session_vars=isolated))
        url = around.s3_url if service == "s3" else around.url
        return session.client(
            service,
            region_name=region,
            endpoint_url=url,
            aws_access_key_id=around.access_key,
            aws_secret_access_key=around.secret_key,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 3},
                max_pool_connections=_THREADS,
                # A proxy of the user's must not come between us and ourselves.
                proxies={} if url == around.url else None,
                s3={"addressing_style": "path"},
            ),
        )
