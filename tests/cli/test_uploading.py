"""``bloomery upload``: exit codes, what is printed, and what is left when it is told to stop or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import client_environment
from tests.support.server import REPOSITORY

WEIGHTS = os.urandom((50 << 20) + 1)  # four parts of 16 MiB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyS3]:
    (tmp_path / "s3" / "models").mkdir(parents=True)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "opt" / "config.json").write_bytes(b"{}")
    with FaultyS3(tmp_path / "s3", with_checksums=False) as server:
        yield server


def command(server: FaultyS3, *arguments: str | Path) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "container")}
    return subprocess.Popen(
        [sys.executable, "-m", "bloomery", "upload", *map(str, arguments)],
        env=environment | client_environment(server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(server: FaultyS3, *arguments: str | Path) -> str:
    process = command(server, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def until(server: FaultyS3, operation: str, count: int, process: subprocess.Popen[str]) -> None:
    while sum(record.operation == operation and record.status == 200 for record in server.requests()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_prints_what_becomes_of_each_file(server: FaultyS3, tmp_path: Path) -> None:
    uri = "s3://models/opt/"
    dry = told(server, tmp_path / "opt", uri, "--dry-run")
    assert "would send" in dry
    assert not list(server.objects.keys("models"))
    first, second = told(server, tmp_path / "opt", uri), told(server, tmp_path / "opt", uri)
    assert first.splitlines()[1].split() == ["sent", "52.4", "MB", "model.safetensors"]
    assert [line.split()[0] for line in second.splitlines()[:2]] == ["equal", "equal"]
    assert second.splitlines()[-1].startswith(f"{uri}: 0.0 MB sent in ")


def test_killed_it_goes_on_where_it_was(server: FaultyS3, tmp_path: Path) -> None:
    # The first two parts arrive at once, the others are refused until it is killed.
    server.inject(Fault("error", "UploadPart", skip=2))
    process = command(server, tmp_path / "opt", "s3://models/opt", "--connections", "2")
    until(server, "UploadPart", 2, process)
    process.kill()
    process.communicate()
    server.heal()

    assert "went on" in told(server, tmp_path / "opt", "s3://models/opt")

    sent = [record for record in server.requests() if record.operation == "UploadPart" and record.status == 200]
    assert len(sent) == 4
    assert server.objects.get("models", "opt/model.safetensors").path.read_bytes() == WEIGHTS
    assert not list(server.objects.uploads("models"))


@pytest.mark.parametrize("resume", [True, False])
def test_told_to_stop_it_says_what_it_leaves(server: FaultyS3, tmp_path: Path, resume: bool) -> None:
    server.inject(Fault("error", "UploadPart", skip=1))
    process = command(server, tmp_path / "opt", "s3://models/opt", *([] if resume else ["--no-resume"]))
    until(server, "UploadPart", 1, process)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130, err
    assert len(list(server.objects.uploads("models"))) == int(resume)
    assert ("parts of model.safetensors stay there for the same command to go on with" in err) is resume
    assert "opt/MANIFEST.json" not in list(server.objects.keys("models"))


def test_what_cannot_be_done_has_an_exit_code(server: FaultyS3, tmp_path: Path) -> None:
    for arguments, code, words in (
        (("/nowhere", "s3://models/opt"), 1, "/nowhere is no directory"),
        ((tmp_path / "opt", "https://models/opt"), 2, "write s3://bucket/prefix"),
    ):
        process = command(server, *arguments)
        err = process.communicate(timeout=60)[1]
        assert (process.returncode, words in err) == (code, True), err
