"""Servers that a benchmark starts, asks and ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloomery.bench.measure import descendants
from bloomery.errors import WorkerError
from bloomery.processes import launch_shim
from bloomery.processes.machine import table_bytes

_CONTAINER = Path(__file__).parents[2]
_POLL = 0.01

ECHO_HANDLER = """
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add(inputs.get_as_bytes())
"""


@dataclass(frozen=True)
class Server:
    """One that runs. ``port_open`` and ``ready`` are the seconds from its start to its first answer to /ping, and to
    the first that says it can serve; equal for a server that has nothing to load."""

    url: str
    pid: int
    port_open: float
    ready: float
    log: Path

    @property
    def descendants(self) -> list[int]:
        """Its worker processes."""
        return descendants(self.pid)

    @property
    def resident_bytes(self) -> int:
        """Of the serving process alone."""
        return table_bytes(f"/proc/{self.pid}/status", "VmRSS")


def echo_model(directory: Path) -> Path:
    """A model directory whose handler gives back what it gets."""
    model = directory / "echo"
    model.mkdir()
    (model / "model.py").write_text(ECHO_HANDLER)
    (model / "serving.properties").write_text("engine=Python\n")
    return model


@contextlib.contextmanager
def bloomery(
    *arguments: str | Path, scratch: Path, env: Mapping[str, str] | None = None, seconds: float = 120
) -> Iterator[Server]:
    """``bloomery serve ARGUMENTS`` on a free port, until it is ready."""
    command = [sys.executable, "-m", "bloomery", "serve", *map(str, arguments), "--port", "0"]
    with _started(command, scratch / "bloomery.log", env or {}, seconds) as server:
        yield server


@contextlib.contextmanager
def bare(loop: str, *, scratch: Path) -> Iterator[Server]:
    """``bloomery.bench.bare`` on that event loop: uvloop, or asyncio (its own)."""
    with _started([sys.executable, "-m", "bloomery.bench.bare", loop], scratch / f"{loop}.log", {}, 60) as server:
        yield server


@contextlib.contextmanager
def _started(command: Sequence[str], log: Path, env: Mapping[str, str], seconds: float) -> Iterator[Server]:
    shim = [sys.executable, "-I", "-S", str(launch_shim.__file__), str(os.getpid())]
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*shim, *command],
            env=os.environ | {"PYTHONPATH": str(_CONTAINER)} | dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield _when_ready(process, log, started, seconds)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _when_ready(process: subprocess.Popen[bytes], log: Path, started: float, seconds: float) -> Server:
    url, port_open = "", 0.0
    while time.monotonic() < started + seconds and process.poll() is None:
        found = re.search(r"listening on (http://\S+?);", log.read_text(errors="replace"))
        status = ping(found[1]) if found else 0
        if status:
            assert found is not None
            url, port_open = found[1], port_open or time.monotonic() - started
        if status in (200, 404):  # the bare server has no /ping, and nothing to load
            return Server(url, process.pid, port_open, time.monotonic() - started, log)
        time.sleep(_POLL)
    text = log.read_text(errors="replace")[-3000:]
    raise WorkerError(f"the server was not ready within {seconds:.0f} s:\n{text}")


def ping(url: str) -> int:
    """The status of /ping; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (urllib.error.URLError, ConnectionError):
        return 0


def post(url: str, body: bytes, timeout: float = 60) -> tuple[int, bytes]:
    """Status and body of one request to /invocations; status 0 when the connection failed."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/invocations", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (urllib.error.URLError, ConnectionError) as error:
        return 0, json.dumps({"error": str(error)}).encode()
