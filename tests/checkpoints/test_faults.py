"""Every fault that S3 is known for: the right bytes come all the same, or an error says which object, which bytes, why.

Never silence, never a hang, and never a partial file under the final name. Each test has its own server, which begins
to fail once the test says so; time is bounded by the options that users have, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.certificates import make_certificate
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import ACCESS_KEY, SECRET_KEY

from bloomery import checkpoints
from bloomery.bench.s3_server import write_checkpoint
from bloomery.errors import CheckpointError

pytestmark = pytest.mark.timeout(60)
REPOSITORY = Path(__file__).parents[2]
URI = "s3://models/bloom"
MIB = 1 << 20
SHARD = "model-00001-of-00002.safetensors"
# Two shards of three MiB and their headers, in parts of one.
SIZE, PARTS = 6 * MIB, 8


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The directory of the checkpoint in the bucket."""
    path = tmp_path / "s3" / "models" / "bloom"
    write_checkpoint(path, SIZE, 2)
    return path


@pytest.fixture
def server(served: Path, read_from: Callable[[FaultyS3], None]) -> Iterator[FaultyS3]:
    with FaultyS3(served.parents[1]) as server:
        read_from(server)
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never passes is given up soon."""
    monkeypatch.setenv("BLOOMERY_FETCH_PATIENCE", "2")


@pytest.fixture
def one_connection(server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """One range is asked for after the other, so that a test knows what had come when something happened."""
    monkeypatch.setenv("BLOOMERY_FETCH_CONNECTIONS", "1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def files_of(path: Path) -> dict[str, bytes]:
    """Everything under its final name; what a later fetch goes on from is hidden."""
    visible = (file for file in path.rglob("*") if file.is_file() and ".fetch" not in str(file.relative_to(path)))
    return {str(file.relative_to(path)): file.read_bytes() for file in visible if not file.name.endswith(".lock")}


def fetched(target: Path) -> dict[str, bytes]:
    return files_of(checkpoints.fetch(URI, directory=target))


def failure(target: Path) -> str:
    """What fetch says when it cannot succeed. Nothing is under a final name then."""
    with pytest.raises(CheckpointError) as error:
        checkpoints.fetch(URI, directory=target)
    assert files_of(target) == {}
    return str(error.value)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("latency", operation="*", seconds=0.1)],
        [Fault("rate", rate=2e6)],
        [Fault("error", fraction=0.5)],
        [Fault("error", operation="*", every=2, retry_after=0.1)],
        [Fault("error", every=4, status=500, code="InternalError")],
        [Fault("error", every=4, status=400, code="RequestTimeout")],
        [Fault("reset", every=3, after_bytes=300_000)],
        [Fault("reset", every=3)],
        [Fault("truncate", every=3, after_bytes=300_000)],
        [Fault("truncate", every=3, after_bytes=0)],
        [Fault("stall", every=5, after_bytes=300_000)],
        [Fault("stall", every=5)],
        [Fault("reset", operation="ListObjectsV2", times=1)],
        [Fault("error", operation="ListObjectsV2", times=2)],
        [Fault("error", operation="HeadObject", every=2)],
        [
            Fault("latency", fraction=0.3, seconds=0.1),
            Fault("error", fraction=0.3),
            Fault("reset", every=5, after_bytes=9),
        ],
    ],
    ids=[
        "latency",
        "slow connections",
        "SlowDown for half of the requests",
        "SlowDown with Retry-After for every request's first attempt",
        "500",
        "RequestTimeout",
        "reset in mid-body",
        "reset before the answer",
        "truncated body",
        "empty body",
        "stalled body",
        "stalled answer",
        "reset of the listing",
        "SlowDown of the listing",
        "SlowDown of the checksums",
        "several at once",
    ],
)
def test_what_passes_is_survived(faults: list[Fault], server: FaultyS3, served: Path, target: Path) -> None:
    server.inject(*faults)
    assert fetched(target) == files_of(served)
    happened = {kind for record in server.requests() for kind in record.fault.split(",") if kind}
    assert happened == {fault.kind for fault in faults}


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("error", key=f"*{SHARD}"), "SlowDown"),
        (Fault("reset", key=f"*{SHARD}", after_bytes=0), "reset|closed|broke"),
        (Fault("truncate", key=f"*{SHARD}", after_bytes=0), "ended|closed|early"),
        (Fault("stall", key=f"*{SHARD}", after_bytes=0), "0.5 s|stall|timed out"),
        (Fault("stall", key=f"*{SHARD}"), "0.5 s|stall|timed out"),
    ],
    ids=["SlowDown", "reset", "truncated", "stalled body", "stalled answer"],
)
@pytest.mark.usefixtures("impatient")
def test_what_does_not_pass_is_reported_with_object_range_and_cause(
    fault: Fault, cause: str, server: FaultyS3, target: Path
) -> None:
    server.inject(fault)
    text = failure(target)
    assert f"{URI}/{SHARD}" in text
    assert re.search(r"bytes \d+-\d+", text), text
    assert re.search(cause, text), text


@pytest.mark.full
@pytest.mark.timeout(120)
@pytest.mark.parametrize("after_bytes", [None, 1000])
def test_by_default_nobody_waits_a_minute_for_nothing(
    after_bytes: int | None, server: FaultyS3, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLOOMERY_STALL_TIMEOUT")
    server.inject(Fault("stall", key=f"*{SHARD}", after_bytes=after_bytes))
    started = time.monotonic()
    text = failure(target)
    assert f"{URI}/{SHARD}" in text
    assert time.monotonic() - started < 60


def test_a_connection_that_breaks_goes_on_where_it_broke(server: FaultyS3, served: Path, target: Path) -> None:
    server.inject(Fault("truncate", every=2, after_bytes=MIB // 2))
    assert fetched(target) == files_of(served)
    read = sum(record.sent for record in server.requests() if record.operation == "GetObject" and record.status == 206)
    assert read <= SIZE + 2 * MIB  # small files, the headers, and no part twice


@pytest.mark.parametrize("kind", ["reset", "truncate", "stall"])
@pytest.mark.usefixtures("server")
def test_a_body_that_breaks_over_tls_is_survived(
    kind: str, served: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    with FaultyS3(served.parents[1], certificate=(certificate, key)) as secure:
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        secure.inject(Fault(kind, every=3, after_bytes=300_000))
        assert fetched(target) == files_of(served)
        assert kind in {record.fault for record in secure.requests()}


def test_a_flipped_byte_is_read_again_and_right(
    server: FaultyS3, served: Path, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.inject(Fault("flip", key=f"*{SHARD}", offset=2_345_678, times=1))
    assert fetched(target) == files_of(served)
    assert f"{URI}/{SHARD}" in caplog.text
    assert "2345678" in caplog.text


def test_a_byte_that_is_always_flipped_is_reported(server: FaultyS3, target: Path) -> None:
    server.inject(Fault("flip", key=f"*{SHARD}", offset=2_345_678))
    text = failure(target)
    assert f"{URI}/{SHARD} is damaged" in text
    assert "CRC64NVME" in text


def test_bytes_that_are_flipped_at_random_are_reported_with_their_offset(server: FaultyS3, target: Path) -> None:
    server.inject(
        Fault("flip", key=f"*{SHARD}", offset=2_345_678, times=1),
        Fault("flip", key=f"*{SHARD}", offset=2_987_654, skip=1, times=1),
    )
    text = failure(target)
    assert f"{URI}/{SHARD}" in text
    assert "2345678" in text


def test_a_damaged_configuration_is_found_too(server: FaultyS3, target: Path) -> None:
    server.inject(Fault("flip", key="*/config.json", offset=3))
    assert "config.json is damaged" in failure(target)


@pytest.mark.usefixtures("one_connection")
def test_an_object_that_is_replaced_in_mid_read_comes_in_its_new_version(
    server: FaultyS3, served: Path, target: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    write_checkpoint(new, SIZE, 2)
    before = files_of(served)
    replace = Fault("replace", key=f"*{SHARD}", skip=2, times=1, content=str(new / SHARD))
    server.inject(replace)
    assert fetched(target) == {**before, SHARD: (new / SHARD).read_bytes()}
    assert 412 in {record.status for record in server.requests()}


@pytest.mark.usefixtures("one_connection")
def test_an_object_that_changes_all_the_time_is_reported(server: FaultyS3, target: Path) -> None:
    server.inject(Fault("replace", key=f"*{SHARD}"))
    text = failure(target)
    assert f"{URI}/{SHARD}" in text
    assert "replaced" in text


def test_credentials_that_expire_in_mid_fetch_are_reported(server: FaultyS3, target: Path) -> None:
    server.inject(Fault("expire", skip=3, times=1))
    text = failure(target)
    assert URI in text
    assert "expired" in text


def test_credentials_that_expire_are_renewed_where_they_can_be(
    server: FaultyS3, served: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = tmp_path / "issued"
    program = tmp_path / "credentials"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os\n"
        f"issued, key, secret = {(str(issued), ACCESS_KEY, SECRET_KEY)!r}\n"
        "open(issued, 'a').write('x')\n"
        "token = 'token-' + str(os.path.getsize(issued))\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': key, 'SecretAccessKey': secret, 'SessionToken': token,\n"
        "    'Expiration': '2099-01-01T00:00:00Z'}))\n"
    )
    program.chmod(0o755)
    configuration = tmp_path / "aws"
    configuration.write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    server.inject(Fault("expire", skip=3, times=1))
    assert fetched(target) == files_of(served)
    assert "expire" in {record.fault for record in server.requests()}


@pytest.mark.parametrize("operation", ["ListObjectsV2", "GetObject"])
def test_denied_access_says_what_is_needed(operation: str, server: FaultyS3, target: Path) -> None:
    server.inject(Fault.denied(operation))
    text = failure(target)
    assert URI in text
    assert "s3:GetObject on models/*" in text


@pytest.mark.parametrize("status", [301, 400])
def test_the_right_region_is_followed(status: int, server: FaultyS3, served: Path, target: Path) -> None:
    server.inject(Fault("wrong_region", operation="*", region="eu-west-1", status=status))
    assert fetched(target) == files_of(served)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_goes_away_is_reported(server: FaultyS3, target: Path) -> None:
    server.close()
    text = failure(target)
    assert URI in text
    assert "AWS_ENDPOINT_URL" in text


@pytest.mark.usefixtures("impatient", "one_connection")
def test_what_failed_goes_on_where_it_was(server: FaultyS3, served: Path, target: Path) -> None:
    server.inject(Fault("error", key="*-00002-of-00002*", skip=2))
    failure(target)
    whole = {(r.key, r.start) for r in server.requests() if r.length and r.sent == r.length}
    server.heal()
    server.forget()
    assert fetched(target) == files_of(served)
    again = {(r.key, r.start) for r in server.requests() if r.length}
    assert len(whole) > PARTS // 2
    assert not again & whole


def test_the_command_fails_with_one_sentence(server: FaultyS3, target: Path) -> None:
    server.inject(Fault("flip", key=f"*{SHARD}", offset=2_345_678))
    command = [sys.executable, "-m", "bloomery", "fetch", URI, str(target)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "container")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert f"{URI}/{SHARD} is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert files_of(target) == {}
