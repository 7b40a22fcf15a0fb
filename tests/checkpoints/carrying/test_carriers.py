"""Fetches over https whose bytes come through other processes: the same bytes, the same errors, and nobody left."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.certificates import make_certificate
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import client_environment

from bloomery.bench.measure import descendants
from bloomery.bench.s3_server import write_checkpoint
from bloomery.checkpoints.carrying.carriers import Carriers
from bloomery.checkpoints.disk import delivery
from bloomery.checkpoints.fetch import fetch_into
from bloomery.checkpoints.source import Place, TransientError, WritingBody
from bloomery.checkpoints.sources import open_source
from bloomery.errors import CheckpointError

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("two_processes")]
REPOSITORY = Path(__file__).parents[3]
URI = "s3://models/bloom"
MIB = 1 << 20
SHARD = "model-00001-of-00002.safetensors"
SIZE = 6 * MIB
COMMAND = f"""
import sys
from bloomery.checkpoints.disk import delivery
delivery._WORTH_PROCESSES = 0
sys.argv = ["bloomery", "fetch", "{URI}", sys.argv[1]]
from bloomery.cli import main
main()
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    path = tmp_path / "s3" / "models" / "bloom"
    write_checkpoint(path, SIZE, 2)
    return path


@pytest.fixture
def server(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_from: Callable[[FaultyS3], None]
) -> Iterator[FaultyS3]:
    certificate, key = make_certificate(tmp_path)
    with FaultyS3(served.parents[1], certificate=(certificate, key)) as server:
        read_from(server)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        yield server


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOOMERY_FETCH_PROCESSES", "2")
    monkeypatch.setattr(delivery, "_WORTH_PROCESSES", 0)  # what is worth it takes seconds


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if not file.name.startswith(".")}


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def readers(pid: int) -> list[int]:
    """The processes that read for the process ``pid``."""
    found = []
    for child in descendants(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if b"carrying.process" in command:
            found.append(child)
    return found


class Fetch(threading.Thread):
    """One under way in this process."""

    def __init__(self, target: Path) -> None:
        super().__init__(daemon=True)
        self._target = target
        self.start()

    def run(self) -> None:
        fetch_into(open_source(URI), self._target)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault("error", fraction=0.5)],
        [Fault("reset", every=3, after_bytes=300_000)],
        [Fault("truncate", every=3, after_bytes=300_000)],
        [Fault("stall", every=4, after_bytes=300_000)],
        [Fault("stall", every=5)],
        [Fault("flip", key=f"*{SHARD}", offset=2_000_000, times=1)],
    ],
    ids=["none", "SlowDown", "reset", "truncated", "stalled body", "stalled answer", "flipped byte"],
)
def test_the_right_bytes_come(faults: list[Fault], server: FaultyS3, served: Path, tmp_path: Path) -> None:
    server.inject(*faults)
    fetch_into(open_source(URI), tmp_path / "target")
    assert files_of(tmp_path / "target") == files_of(served)
    happened = {kind for record in server.requests() for kind in record.fault.split(",") if kind}
    assert happened == {fault.kind for fault in faults}
    assert readers(os.getpid()) == []


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("stall", key=f"*{SHARD}", after_bytes=0), "no byte came for 0.5 s"),
        (Fault("truncate", key=f"*{SHARD}", after_bytes=0), "closed too early"),
        (Fault("error", key=f"*{SHARD}"), "SlowDown"),
        (Fault.denied("GetObject", f"*{SHARD}"), "s3:GetObject"),
    ],
    ids=["stall", "truncated", "SlowDown", "denied"],
)
def test_what_does_not_pass_is_reported_with_object_range_and_cause(
    fault: Fault, cause: str, server: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOOMERY_FETCH_PATIENCE", "2")
    server.inject(fault)
    with pytest.raises(CheckpointError) as error:
        fetch_into(open_source(URI), tmp_path / "target")
    assert re.search(rf"{URI}/{SHARD}, bytes \d+-\d+.*{cause}", str(error.value)), error.value
    assert readers(os.getpid()) == []


def test_a_process_that_is_killed_is_done_without(
    server: FaultyS3, served: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.inject(Fault("rate", rate=1.5e6))
    fetch = Fetch(tmp_path / "target")
    until(lambda: server.sent > MIB and len(readers(os.getpid())) == 2)
    os.kill(readers(os.getpid())[0], signal.SIGKILL)
    fetch.join()
    assert files_of(tmp_path / "target") == files_of(served)
    assert "this one reads itself" in caplog.text


def test_nobody_is_left_when_the_fetch_is_killed_and_the_next_one_goes_on(
    server: FaultyS3, served: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "container")}
    command = [sys.executable, "-c", COMMAND, str(target)]
    server.inject(Fault("rate", rate=1.5e6))
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        until(lambda: server.sent > 3 * MIB)
        left = readers(process.pid)
        process.kill()
    server.settle(10.0)
    assert len(left) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))
    server.heal()
    sent = server.sent
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert files_of(target) == files_of(served)
    assert server.sent - sent < SIZE + MIB  # some of it was there


def test_a_plain_address_needs_no_process(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyS3(served.parents[1]) as plain, Carriers(2, 2) as carriers:
        for name, value in client_environment(plain.url).items():
            monkeypatch.setenv(name, value)
        source = open_source(URI)
        entry = source.entries()[0]
        with closing(source.connect(carriers.http)) as connection, connection.read(entry, 0, entry.size) as body:
            assert not isinstance(body, WritingBody)
            assert body.readinto(memoryview(bytearray(entry.size))) == entry.size
        assert readers(os.getpid()) == []


@pytest.mark.usefixtures("server")
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    lost = str(tmp_path / "lost" / "file")
    with Carriers(1, 1) as carriers, closing(open_source(URI).connect(carriers.http)) as connection:
        entry = next(entry for entry in open_source(URI).entries() if entry.name == SHARD)
        with connection.read(entry, 0, MIB) as body:
            assert isinstance(body, WritingBody)
            with pytest.raises(OSError, match="No such file") as error:
                body.write(Place(lost, 0, 0), MIB)
        assert (error.value.errno, error.value.filename) == (errno.ENOENT, lost)
        with connection.read(entry, 0, 8) as body:  # the connection goes on
            assert body.readinto(memoryview(bytearray(8))) == 8


def test_closing_lets_who_waits_fail_at_once(server: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOOMERY_STALL_TIMEOUT", "30")
    server.inject(Fault("stall", key=f"*{SHARD}", after_bytes=0))
    (tmp_path / "file").touch()
    with Carriers(1, 1) as carriers:
        connection = open_source(URI).connect(carriers.http)
        entry = next(entry for entry in open_source(URI).entries() if entry.name == SHARD)
        with connection.read(entry, 0, MIB) as body:
            assert isinstance(body, WritingBody)
            threading.Timer(0.2, connection.close).start()
            started = time.monotonic()
            with pytest.raises(TransientError):
                body.write(Place(str(tmp_path / "file"), 0, 0), MIB)
            assert time.monotonic() - started < 10
        with pytest.raises(TransientError, match="closed"), connection.read(entry, 0, MIB):
            pass
