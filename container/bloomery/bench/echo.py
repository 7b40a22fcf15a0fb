"""The server's own cost: a handler that echoes, behind the real server, beside a bare aiohttp in the same run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bloomery.bench import load, servers
from bloomery.bench.measure import ProcessorTime, percentile, share_of_others
from bloomery.bench.servers import Server

# The peer on the event loop that our server has, and on the one that aiohttp has by itself.
BARE, PLAIN, OURS = "bare aiohttp on uvloop", "bare aiohttp", "bloomery"
SMALL, LARGE = 100, 10_000_000
# Body size and connections. Large bodies go over one connection: what is measured is copying, not queueing.
CASES = ((SMALL, 1), (SMALL, 4), (SMALL, 32), (LARGE, 1))


@dataclass(frozen=True)
class EchoResult:
    """One case of one server; lists hold a value per round. ``others``: the largest part of all cores' time, 0 to 1,
    that neither server, worker nor this client took."""

    server: str
    body_bytes: int
    connections: int
    requests: int
    p50_ms: list[float]
    p99_ms: list[float]
    requests_per_second: list[float]
    server_cpu_us: float  # processor time of the serving process per request, microseconds
    others: float

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        return asdict(self)


@dataclass(frozen=True)
class StartResult:
    """Seconds from the start to the first answer on /ping and to being ready, and the serving process's memory then."""

    port_open: float
    ready: float
    resident_bytes: int


def run(
    seconds: float, rounds: int = 3, cases: Sequence[tuple[int, int]] = CASES
) -> tuple[list[EchoResult], StartResult]:
    """Start the servers and ask them in turns, ``seconds`` per case and round."""
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-") as directory:
        scratch = Path(directory)
        with (
            servers.bare("uvloop", scratch=scratch) as bare,
            servers.bare("asyncio", scratch=scratch) as plain,
            servers.bloomery(servers.echo_model(scratch), scratch=scratch) as ours,
        ):
            start = StartResult(ours.port_open, ours.ready, ours.resident_bytes)
            all_three = {BARE: bare, PLAIN: plain, OURS: ours}
            for server in all_three.values():  # warms up
                load.ask(f"{server.url}/invocations", b"x", 1, min(1.0, seconds))
            return [each for size, number in cases for each in _case(all_three, size, number, seconds, rounds)], start


def _case(each_server: dict[str, Server], size: int, connections: int, seconds: float, rounds: int) -> list[EchoResult]:
    body = os.urandom(size // 2).hex().encode()
    samples: dict[str, list[_Sample]] = {name: [] for name in each_server}
    for _ in range(rounds):
        for name, server in each_server.items():
            samples[name].append(_sample(server, body, connections, seconds))
    return [
        EchoResult(
            name,
            len(body),
            connections,
            sum(len(each.latencies) for each in taken),
            [1000 * percentile(each.latencies, 50) for each in taken],
            [1000 * percentile(each.latencies, 99) for each in taken],
            [len(each.latencies) / each.elapsed for each in taken],
            median(1e6 * each.server_cpu / len(each.latencies) for each in taken),
            max(each.others for each in taken),
        )
        for name, taken in samples.items()
    ]


@dataclass(frozen=True)
class _Sample:
    latencies: list[float]
    elapsed: float
    server_cpu: float
    others: float


def _sample(server: Server, body: bytes, connections: int, seconds: float) -> _Sample:
    pids = [os.getpid(), server.pid, *server.descendants]
    before, own = ProcessorTime.now(pids), ProcessorTime.now([server.pid])
    seen = load.ask(f"{server.url}/invocations", body, connections, seconds)
    others = share_of_others(before, ProcessorTime.now(pids))
    used = ProcessorTime.now([server.pid]).ours - own.ours
    return _Sample(seen.latencies, seen.elapsed, used, others)


def table(results: Sequence[EchoResult]) -> str:
    """Markdown; figures are medians over the rounds, with the smallest and largest round of requests/s."""
    lines = [
        "| server | body | connections | requests | P50 ms | P99 ms | requests/s | rounds | x bare | CPU µs | others |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    bare = {(r.body_bytes, r.connections): median(r.requests_per_second) for r in results if r.server == BARE}
    for r in results:
        rate = median(r.requests_per_second)
        ratio = rate / bare[r.body_bytes, r.connections]
        spread = f"{min(r.requests_per_second):.0f}–{max(r.requests_per_second):.0f}"
        lines.append(
            f"| {r.server} | {_size(r.body_bytes)} | {r.connections} | {r.requests} | {median(r.p50_ms):.2f} "
            f"| {median(r.p99_ms):.2f} | {rate:.0f} | {spread} | {ratio:.2f} | {r.server_cpu_us:.0f} | {r.others:.0%} |"
        )
    return "\n".join(lines)


def start_line(start: StartResult) -> str:
    """In words."""
    return (
        f"start: first answer on /ping after {start.port_open:.2f} s, ready after {start.ready:.2f} s, "
        f"serving process {start.resident_bytes / 2**20:.0f} MB"
    )


def _size(count: int) -> str:
    return f"{count} B" if count < 10_000 else f"{count / 1e6:g} MB"
