"""``bloomery fetch`` beside other clients: the same objects from the same server in the same run, in turns."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bloomery.bench.fetching_clients import Client, clients
from bloomery.bench.measure import ProcessorTime, Runs, TreePeak, in_order
from bloomery.bench.s3_server import BUCKET, S3Server, s3_server, write_checkpoint
from bloomery.errors import CheckpointError

_MIB = 2**20
_TOO_LONG = 600.0  # seconds of one run
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Run:
    """One fetch by one client. ``others``: the part of all cores' time that went to neither client nor server."""

    wall_seconds: float
    processor_seconds: float
    peak_bytes: int
    others: float


@dataclass
class Result(Runs):
    """One client on one checkpoint."""

    checkpoint: str
    client: str
    size: int
    runs: list[Run] = field(default_factory=list)


def run(
    rounds: int, checkpoints: Sequence[tuple[int, int]], directory: Path | None = None, tls: bool = False
) -> list[Result]:
    """Every client ``rounds`` times on each checkpoint (bytes, shards), on tmpfs where there is one. ``tls``: by https.

    Raises CheckpointError when a client fails or fetches something else than the server has.
    """
    parent = directory or (_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
    needed = 2 * max(size for size, _ in checkpoints)
    if (free := shutil.disk_usage(parent).free) < needed:
        raise CheckpointError(f"{parent} has {free // _MIB} MiB free; the benchmark needs {needed // _MIB} MiB there")
    results: list[Result] = []
    for size, shards in checkpoints:
        with tempfile.TemporaryDirectory(prefix="bloomery-bench-", dir=parent) as scratch:
            name = f"{size / _MIB:,.0f} MiB in {shards} file{'s' if shards > 1 else ''}"
            results += _compare(rounds, name, size, shards, Path(scratch), tls)
    return results


def _compare(rounds: int, name: str, size: int, shards: int, scratch: Path, tls: bool) -> list[Result]:
    served, uri = scratch / "served", f"s3://{BUCKET}/model"
    write_checkpoint(served / BUCKET / "model", size, shards)
    with s3_server(served, scratch if tls else None) as server:
        contestants = clients(server.url, uri, served / BUCKET / "model")
        results = [Result(name, client.name, size) for client in contestants]
        _run(contestants[0], server, scratch, served)  # the server computes its checksums once
        for turn in range(rounds):
            for client, result in in_order(list(zip(contestants, results, strict=True)), turn):
                result.runs.append(_run(client, server, scratch, served))
    return results


def _run(client: Client, server: S3Server, scratch: Path, served: Path) -> Run:
    target = scratch / "fetched"
    target.mkdir()
    log = scratch / "log"
    command = [part.replace("{target}", str(target)) for part in client.command]
    known = [os.getpid(), server.pid]
    before = ProcessorTime.now(known)
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(server.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        with TreePeak(process.pid) as peak:
            status, usage = _wait(process)
        wall = time.perf_counter() - started
    after = ProcessorTime.now(known)
    if status:
        raise CheckpointError(f"{client.name} ended with {status}:\n{log.read_text(errors='replace')[-2000:]}")
    _check(client, served / BUCKET / "model", target)
    shutil.rmtree(target)
    processor = usage.ru_utime + usage.ru_stime
    others = (after.everybody - before.everybody) - (after.ours - before.ours) - processor
    share = min(1.0, max(0.0, others / ((after.wall - before.wall) * (os.cpu_count() or 1))))
    return Run(wall, processor, peak.bytes, share)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, Any]:
    """Exit code and resources, with those of its children; the group is killed when it takes too long."""
    end = time.monotonic() + _TOO_LONG
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode, usage
            if time.monotonic() > end:
                raise CheckpointError(f"{process.args!r} took more than {_TOO_LONG:g} s")
            time.sleep(0.002)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _check(client: Client, served: Path, target: Path) -> None:
    """Everything that is served was fetched, byte for byte."""
    for path in served.iterdir():
        fetched = target / path.name
        same = subprocess.run(["cmp", "--quiet", path, fetched]).returncode == 0
        if not same:
            raise CheckpointError(f"{client.name} did not fetch {path.name} as it is served")
