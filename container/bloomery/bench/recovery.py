"""From ``kill -9`` of a rank to the next right answer, and which part of it went where."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from bloomery.bench import servers
from bloomery.bench.servers import Server
from bloomery.errors import WorkerError

_STAMP = re.compile(
    r"(?m)^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) .*?(restarting in|Python engine started|ready after)"
)
_TOO_LONG = 120.0


@dataclass(frozen=True)
class RecoveryResult:
    """Seconds, a value per kill: until the loss was noticed, until every new rank listened (interpreter and imports),
    until the model was loaded, and until the next right answer was here (all counted from the kill)."""

    model: str
    ranks: int
    noticed: list[float]
    listening: list[float]
    loaded: list[float]
    answered: list[float]

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        return asdict(self)


def run(kills: int) -> list[RecoveryResult]:
    """The echo handler with one rank, and the demonstration model with two."""
    with tempfile.TemporaryDirectory(prefix="bloomery-bench-") as directory:
        scratch = Path(directory)
        patience = {"SERVING_RETRY_THRESHOLD": "1000000"}
        loops = ("-o", "crash_loop_limit=1000000")
        with servers.bloomery(servers.echo_model(scratch), *loops, scratch=scratch, env=patience) as server:
            results = [measure(server, "echo handler", b"To be", kills)]
        with servers.bloomery(*loops, scratch=scratch, env=patience) as server:
            body = b'{"inputs": "KING.\\nMy lords,", "parameters": {"max_new_tokens": 4}}'
            return [*results, measure(server, "demonstration model", body, kills)]


def measure(server: Server, name: str, body: bytes, kills: int) -> RecoveryResult:
    """Kill the last rank so often, each time once the answer to ``body`` is right again."""
    status, right = servers.post(server.url, body)
    if status != 200:
        raise WorkerError(f"{name}: HTTP {status}: {right[:500]!r}")
    ranks = len(server.descendants)
    rows = [_kill(server, body, right) for _ in range(kills)]
    return RecoveryResult(name, ranks, *(list(column) for column in zip(*rows, strict=True)))


def _kill(server: Server, body: bytes, right: bytes) -> tuple[float, float, float, float]:
    position = server.log.stat().st_size
    victim = server.descendants[-1]
    killed_at, wall = time.monotonic(), time.time()
    os.kill(victim, signal.SIGKILL)
    while (answer := servers.post(server.url, body)) != (200, right):
        if time.monotonic() - killed_at > _TOO_LONG:
            raise WorkerError(f"no right answer within {_TOO_LONG:g} s; the last: HTTP {answer[0]} {answer[1][:300]!r}")
        time.sleep(0.01)
    answered = time.monotonic() - killed_at
    seen: dict[str, float] = {}
    with server.log.open("rb") as log:
        log.seek(position)
        for stamp, milliseconds, what in _STAMP.findall(log.read().decode("utf-8", "replace")):
            # The last rank to listen counts, so a later line replaces an earlier one.
            seen[what] = datetime.fromisoformat(stamp).timestamp() + int(milliseconds) / 1000 - wall
    return seen["restarting in"], seen["Python engine started"], seen["ready after"], answered


def table(results: list[RecoveryResult]) -> str:
    """Markdown; medians, and the slowest kill."""
    lines = [
        "| model | ranks | kills | noticed s | ranks listen s | loaded s | next right answer s | slowest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.model} | {r.ranks} | {len(r.answered)} | {median(r.noticed):.2f} | {median(r.listening):.2f} "
        f"| {median(r.loaded):.2f} | {median(r.answered):.2f} | {max(r.answered):.2f} |"
        for r in results
    ]
    return "\n".join(lines)
