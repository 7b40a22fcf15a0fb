"""moto as a child of the emulator: on a free loopback port of its own, and gone when we are."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from bloomery.errors import BloomeryError
from bloomery.processes.child import Child

logger = logging.getLogger(__name__)
_GRACE = 2.0  # seconds; it holds nothing that is not in the journal


class MotoChild:
    """``start`` returns at once, ``url`` when it listens."""

    def __init__(self, child: Child, port: asyncio.Future[int]) -> None:
        self._child, self._port = child, port
        self.exited = child.exited

    @classmethod
    def start(cls) -> MotoChild:
        """Start the process."""
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_line(line: str) -> None:
            if port.done():
                logger.info("moto: %s", line)
            elif line.isdecimal():
                port.set_result(int(line))

        command = [sys.executable, "-m", "bloomery.sagemaker.emulator.aws.moto_server"]
        return cls(Child.start(command, _environment(), None, on_line), port)

    async def url(self) -> str:
        """Where it listens. BloomeryError with its last words when it ends before."""
        await asyncio.wait({self._port, self._child.exited}, return_when=asyncio.FIRST_COMPLETED)
        if not self._port.done():
            raise BloomeryError("moto, which stands in for S3 and others, cannot start:\n" + self.last_words())
        return f"http://127.0.0.1:{self._port.result()}"

    def last_words(self) -> str:
        """What it printed last."""
        return "\n".join(self._child.last_lines(20))

    async def end(self) -> None:
        """End the process."""
        await self._child.end(_GRACE)


def _environment() -> dict[str, str]:
    """Ours, without anything that concerns an AWS account: moto is to have nothing to do with one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_", "BOTO"))}
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",  # notebooks attach AmazonSageMakerFullAccess to their role
    }
