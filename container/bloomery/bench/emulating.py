"""What the SageMaker emulator costs: its start, an invocation through it beside one of the container itself, and the
first piece of a stream likewise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from bloomery.bench import load
from bloomery.bench.measure import ProcessorTime, descendants, percentile, share_of_others
from bloomery.errors import WorkerError
from bloomery.processes import launch_shim

_CONTAINER = Path(__file__).parents[2]
_NAME, _BODY = "bench", b"x" * 100
_READY = re.compile(r"(?m)^ready: SageMaker on (\S+) ")
CONNECTIONS = (1, 8)


@dataclass(frozen=True)
class EmulatorResult:
    """Milliseconds, a value per round. ``others``: the largest part of all cores' time that was somebody else's."""

    what: str
    direct_ms: list[float]
    through_ms: list[float]
    through_p99_ms: list[float]
    others: float

    @property
    def added_ms(self) -> list[float]:
        """By the emulator, per round."""
        return [through - direct for direct, through in zip(self.direct_ms, self.through_ms, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        return {**asdict(self), "added_ms": self.added_ms}


def run(seconds: float, rounds: int) -> tuple[list[EmulatorResult], list[float]]:
    """Both ways in turns, ``seconds`` per case and round; and the seconds of as many starts."""
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-") as directory:
        scratch, starts = Path(directory), []
        for number in range(rounds):
            with _emulator(scratch / f"state-{number}") as (_, took, _):
                starts.append(took)
        with _emulator(scratch / "state") as (url, _, pid):
            through = f"{url}/endpoints/{_NAME}/invocations"
            _deploy(url)
            direct = f"http://127.0.0.1:{_post(through, b'where').decode()}/invocations"
            for each in (direct, through):  # warms up
                load.ask(each, _BODY, 1, min(1.0, seconds))
            pids = [os.getpid(), pid, *descendants(pid)]
            results = [_invocations(direct, through, number, seconds, rounds, pids) for number in CONNECTIONS]
            results.append(_first_pieces(direct, f"{through}-response-stream", seconds, rounds, pids))
            return results, starts


def _invocations(
    direct: str, through: str, connections: int, seconds: float, rounds: int, pids: list[int]
) -> EmulatorResult:
    before = ProcessorTime.now(pids)
    taken: dict[str, list[list[float]]] = {direct: [], through: []}
    for _ in range(rounds):
        for url, samples in taken.items():
            samples.append(load.ask(url, _BODY, connections, seconds).latencies)
    others = share_of_others(before, ProcessorTime.now(pids))
    return _result(f"invocation, {connections} at a time", taken[direct], taken[through], others)


def _first_pieces(direct: str, through: str, seconds: float, rounds: int, pids: list[int]) -> EmulatorResult:
    before = ProcessorTime.now(pids)
    taken: dict[str, list[list[float]]] = {direct: [], through: []}
    for _ in range(rounds):
        for url, samples in taken.items():
            samples.append(asyncio.run(_first_pieces_of(url, seconds)))
    others = share_of_others(before, ProcessorTime.now(pids))
    return _result("first piece of a stream", taken[direct], taken[through], others)


async def _first_pieces_of(url: str, seconds: float) -> list[float]:
    """Seconds from the request to the first byte of the answer's body, one after the other."""
    parts, latencies, until = urlsplit(url), [], time.perf_counter() + seconds
    body = b"stream"
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    while time.perf_counter() < until:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        asked = time.perf_counter()
        writer.write(head.encode() + b"\r\n" + body)
        status = await reader.readuntil(b"\r\n\r\n")
        first = await reader.read(1)
        latencies.append(time.perf_counter() - asked)
        rest = await reader.read()
        writer.close()
        await writer.wait_closed()
        if b" 200 " not in status or not first or b"second" not in rest:
            raise WorkerError(f"the stream came back wrong: {status[:200]!r}")
    return latencies


def _result(what: str, direct: list[list[float]], through: list[list[float]], others: float) -> EmulatorResult:
    def each(samples: list[list[float]], percent: float) -> list[float]:
        return [1000 * percentile(sample, percent) for sample in samples]

    return EmulatorResult(what, each(direct, 50), each(through, 50), each(through, 99), others)


@contextlib.contextmanager
def _emulator(state: Path) -> Iterator[tuple[str, float, int]]:
    """Its URL, the seconds until it was ready, and its process."""
    container = f"{sys.executable} -m bloomery.bench.container"
    image = f"^{_NAME}$=env PYTHONPATH={_CONTAINER} {container}"
    command = [sys.executable, "-m", "bloomery", "sagemaker-local", "--port", "0", "--state", str(state)]
    shim = [sys.executable, "-I", "-S", str(launch_shim.__file__), str(os.getpid())]
    log, started = state.with_name(f"{state.name}.log"), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*shim, *command, "--image", image],
            env=os.environ | {"PYTHONPATH": str(_CONTAINER)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while (found := _READY.search(log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > started + 60:
                raise WorkerError(f"the emulator did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.01)
        yield found[1], time.monotonic() - started, process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=45)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _deploy(url: str) -> None:
    import boto3

    keys = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}
    with contextlib.closing(boto3.client("sagemaker", endpoint_url=url, **keys)) as sagemaker:
        role = "arn:aws:iam::123456789012:role/bench"
        sagemaker.create_model(ModelName=_NAME, ExecutionRoleArn=role, PrimaryContainer={"Image": _NAME})
        variant = {"VariantName": "AllTraffic", "ModelName": _NAME, "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(
            EndpointConfigName=_NAME, ProductionVariants=[variant | {"InstanceType": "ml.g5.xlarge"}]
        )
        sagemaker.create_endpoint(EndpointName=_NAME, EndpointConfigName=_NAME)
        while (found := sagemaker.describe_endpoint(EndpointName=_NAME))["EndpointStatus"] == "Creating":
            time.sleep(0.05)
    if found["EndpointStatus"] != "InService":
        raise WorkerError(f"the endpoint is {found['EndpointStatus']}: {found.get('FailureReason')}")


def _post(url: str, body: bytes) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=60) as answer:
        return bytes(answer.read())


def table(results: Sequence[EmulatorResult]) -> str:
    """Markdown; figures are medians over the rounds, with the smallest and largest round of what is added."""
    lines = [
        "| what | direct P50 ms | through P50 ms | through P99 ms | added P50 ms | rounds | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r.what} | {median(r.direct_ms):.2f} | {median(r.through_ms):.2f} | {median(r.through_p99_ms):.2f} "
            f"| {median(r.added_ms):.2f} | {min(r.added_ms):.2f}–{max(r.added_ms):.2f} | {r.others:.0%} |"
        )
    return "\n".join(lines)


def start_line(starts: Sequence[float]) -> str:
    """In words."""
    return f"start: ready after {median(starts):.2f} s ({min(starts):.2f}–{max(starts):.2f})"
