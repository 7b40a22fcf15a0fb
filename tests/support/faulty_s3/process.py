"""The same server as a process of its own, so that it takes no time from the interpreter that is tested."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.faulty_s3.faults import Fault
from tests.support.faulty_s3.log import Record

_REPOSITORY = Path(__file__).parents[3]


class FaultyS3Process:
    """A running ``python -m tests.support.faulty_s3``, governed as a FaultyS3 is. It ends with whoever started it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.support.faulty_s3", str(directory), "--until-eof", *arguments]
        self._process = subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the S3 server ended with {self._process.returncode}; its message is above")
        self.port, self.pid = int(line), self._process.pid
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.terminate()
        self._process.wait(30)

    def inject(self, *faults: Fault) -> None:
        """From now on these go wrong, and no others."""
        self._ask("PUT", "faults", [asdict(fault) for fault in faults])

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.inject()

    def requests(self) -> list[Record]:
        """Those answered since the start, or since they were last forgotten."""
        return [Record(**record) for record in json.loads(self._ask("GET", "requests"))]

    def forget(self) -> None:
        """Empty the log."""
        self._ask("DELETE", "requests")

    def _ask(self, method: str, what: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/-/{what}", data, method=method)
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return bytes(answer.read())
