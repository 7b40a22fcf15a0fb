"""The server's own cost: a handler that echoes, behind the real server, asked over kept-open connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bloomery.bench.measure import ProcessorTime, percentile, share_of_others
from bloomery.errors import WorkerError
from bloomery.processes import launch_shim

_HANDLER = """
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add(inputs.get_as_bytes())
"""
_CONTAINER = Path(__file__).parents[2]
_BODY = b'{"inputs": "To be, or not to be, that is the question"}'


@dataclass(frozen=True)
class EchoResult:
    """``others``: the part of all cores' time that neither the server, its worker nor this client took, 0 to 1."""

    connections: int
    requests: int
    p50_ms: float
    p99_ms: float
    requests_per_second: float
    others: float

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        return asdict(self)


def run(seconds: float, connections: tuple[int, ...] = (1, 4)) -> list[EchoResult]:
    """Start a server of our own on a free port and ask it for ``seconds`` with each number of connections."""
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-") as directory:
        model = Path(directory) / "echo"
        model.mkdir()
        (model / "model.py").write_text(_HANDLER)
        (model / "serving.properties").write_text("engine=Python\n")
        with _server(model, Path(directory) / "server.log") as (url, pid):
            asyncio.run(_ask(url, pid, 1, min(1.0, seconds)))  # warms up
            return [asyncio.run(_ask(url, pid, number, seconds)) for number in connections]


def table(results: list[EchoResult]) -> str:
    """Markdown."""
    lines = [
        "| connections | requests | P50 ms | P99 ms | requests/s | others' CPU |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.connections} | {r.requests} | {r.p50_ms:.2f} | {r.p99_ms:.2f} | {r.requests_per_second:.0f} "
        f"| {r.others:.0%} |"
        for r in results
    ]
    return "\n".join(lines)


async def _ask(url: str, pid: int, connections: int, seconds: float) -> EchoResult:
    import aiohttp

    latencies: list[float] = []
    pids = [os.getpid(), pid, *_descendants(pid)]
    before = ProcessorTime.now(pids)
    started = time.perf_counter()
    end = started + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

        async def ask() -> None:
            while (sent := time.perf_counter()) < end:
                async with session.post(f"{url}/invocations", data=_BODY) as response:
                    if await response.read() != _BODY:
                        raise WorkerError(f"the echo came back wrong: HTTP {response.status}")
                latencies.append(time.perf_counter() - sent)

        await asyncio.gather(*(ask() for _ in range(connections)))
    elapsed = time.perf_counter() - started
    others = share_of_others(before, ProcessorTime.now(pids))
    return EchoResult(
        connections,
        len(latencies),
        1000 * percentile(latencies, 50),
        1000 * percentile(latencies, 99),
        len(latencies) / elapsed,
        others,
    )


@contextlib.contextmanager
def _server(model: Path, log: Path) -> Iterator[tuple[str, int]]:
    shim = [sys.executable, "-I", "-S", str(launch_shim.__file__), str(os.getpid())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*shim, sys.executable, "-m", "bloomery", "serve", str(model), "--port", "0"],
            env=os.environ | {"PYTHONPATH": str(_CONTAINER)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield _when_ready(process, log), process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _when_ready(process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> str:
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"listening on (http://\S+?);", log.read_text(errors="replace"))
        if found:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{found[1]}/ping", timeout=5).close()
                return found[1]
        time.sleep(0.1)
    raise WorkerError(
        f"the echo server was not ready within {seconds:.0f} s:\n{log.read_text(errors='replace')[-3000:]}"
    )


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
