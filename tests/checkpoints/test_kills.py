"""``kill -9`` at random points of one fetch, each time begun again: byte-identical at the end, nothing read twice.

The server's log is the proof. A connection reads one range after the other, and asks for the next only when the last
is written and entered into the journal: so everything but the last range of each connection was finished when the
process was killed, and none of that may be asked for again.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.faulty_s3 import Fault, FaultyS3, Record
from tests.support.faulty_s3.environment import FOREIGN, client_environment

from bloomery.bench.s3_server import write_checkpoint

REPOSITORY = Path(__file__).parents[2]
MIB = 1 << 20
CONNECTIONS = 4
# So slow that every kill meets a fetch under way: the parts take a quarter of a second each.
RATE = 4.0 * MIB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyS3]:
    (tmp_path / "s3" / "models").mkdir(parents=True)
    with FaultyS3(tmp_path / "s3") as server:
        yield server


def start(server: FaultyS3, target: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment |= client_environment(server.url)
    environment |= {"PYTHONPATH": str(REPOSITORY / "container")}
    environment |= {"BLOOMERY_FETCH_PART_MIB": "1", "BLOOMERY_FETCH_CONNECTIONS": str(CONNECTIONS)}
    command = [sys.executable, "-m", "bloomery", "fetch", "s3://models/bloom", str(target)]
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def kill_after(server: FaultyS3, process: subprocess.Popen[bytes], count: int, delay: float) -> None:
    """SIGKILL once so many more bytes have left the server, and ``delay`` seconds have passed."""
    goal = server.sent + count
    while server.sent < goal and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.wait()
    server.settle()


def visible(target: Path) -> dict[str, bytes]:
    """What a reader of the directory sees."""
    names = [path.name for path in target.iterdir() if not path.name.startswith(".")] if target.is_dir() else []
    return {name: (target / name).read_bytes() for name in names if not name.endswith(".lock")}


def reads(records: list[Record]) -> list[tuple[int, str, range]]:
    """(connection, object, bytes) of each range of a file that was answered."""
    found = []
    for record in records:
        if record.operation == "GetObject" and record.start is not None and record.length is not None:
            found.append((record.connection, record.key, range(record.start, record.start + record.length)))
    return found


def finished(records: list[Record]) -> list[tuple[str, range]]:
    """What a process that was killed had surely written."""
    asked = reads(records)
    last = {connection: index for index, (connection, _, _) in enumerate(asked)}
    return [(key, span) for index, (connection, key, span) in enumerate(asked) if last[connection] != index]


def read_twice(had: list[tuple[str, range]], records: list[Record]) -> list[tuple[str, range]]:
    """What was asked for though it was there."""
    return [
        (key, span)
        for _, key, span in reads(records)
        for there, held in had
        if there == key and span.start < held.stop and held.start < span.stop
    ]


@pytest.mark.parametrize(
    ("kills", "size"), [(5, 24 * MIB), pytest.param(50, 96 * MIB, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
def test_a_fetch_that_is_killed_again_and_again_is_right_and_reads_nothing_twice(
    kills: int, size: int, server: FaultyS3, tmp_path: Path
) -> None:
    served, target, log = tmp_path / "s3" / "models" / "bloom", tmp_path / "target", tmp_path / "log"
    write_checkpoint(served, size, 3)
    expected = visible(served)
    server.inject(Fault("rate", rate=RATE))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    points = random.Random(seed)
    had: list[tuple[str, range]] = []
    for _ in range(kills):
        server.forget()
        process = start(server, target, log)
        kill_after(server, process, points.randrange(size // kills), points.uniform(0, 0.05))
        assert process.returncode == -9, log.read_text()
        assert read_twice(had, server.requests()) == []
        had += finished(server.requests())
        assert visible(target) == {}
    server.forget()
    server.heal()
    assert start(server, target, log).wait(60) == 0, log.read_text()
    assert read_twice(had, server.requests()) == []
    assert visible(target) == expected
    assert had  # or nothing was proved


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_a_fetch_that_is_killed_as_it_publishes_is_nowhere_or_whole(
    rounds: int, server: FaultyS3, tmp_path: Path
) -> None:
    served, log = tmp_path / "s3" / "models" / "bloom", tmp_path / "log"
    write_checkpoint(served, 4 * MIB, 2)
    expected = visible(served)
    total = sum(map(len, expected.values()))
    for turn in range(rounds):
        target = tmp_path / f"target-{turn}"
        process = start(server, target, log)
        kill_after(server, process, total, random.uniform(0, 0.1))
        for name, data in visible(target).items():
            assert data == expected[name]
        had = finished(server.requests())
        server.forget()
        assert start(server, target, log).wait(60) == 0, log.read_text()
        assert visible(target) == expected
        assert read_twice(had, server.requests()) == []
        server.forget()
