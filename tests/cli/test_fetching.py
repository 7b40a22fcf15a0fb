"""``bloomery fetch``, as a user runs it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import client_environment
from tests.support.safetensors_file import safetensors_bytes
from tests.support.server import REPOSITORY

from bloomery.processes.lock import FileLock

MIB = 1 << 20
FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "config.json": b"{}",
    "model.safetensors": safetensors_bytes(12 * MIB),
    "pytorch_model.bin": b"the same weights",
}
NEEDED = {name: data for name, data in FILES.items() if name != "pytorch_model.bin"}


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[FaultyS3]:
    """A server with s3://bucket/model."""
    directory = tmp_path / "s3"
    for name, data in FILES.items():
        path = directory / "bucket" / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with FaultyS3(directory) as server:
        yield server


def start(s3: FaultyS3, *arguments: str | Path, stderr: int = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "container"), "HOME": "/nonexistent"}
    return subprocess.Popen(
        [sys.executable, "-m", "bloomery", "fetch", *map(str, arguments)],
        env={**environment, **client_environment(s3.url), **more},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def fetch(s3: FaultyS3, *arguments: str | Path, **more: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with start(s3, *arguments, **more) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name[0] != "."}


def test_one_line_says_what_was_done(s3: FaultyS3, tmp_path: Path) -> None:
    target = tmp_path / "new" / "model"
    code, out, err = fetch(s3, "s3://bucket/model", target)
    assert code == 0, err
    assert files_of(target) == NEEDED
    assert re.fullmatch(
        rf"s3://bucket/model: 3 files, 12\.6 MB, in {target}; 12\.6 MB read in [\d.]+ s \(\d+ MiB/s\); "
        r"verified 3 by CRC64NVME; licence: apache-2\.0\n",
        out,
    )
    assert "fetching checkpoint s3://bucket/model: 12.6 MB in " in err


def test_a_second_time_there_is_nothing_to_do(s3: FaultyS3, tmp_path: Path) -> None:
    fetch(s3, "s3://bucket/model", tmp_path / "model")
    code, out, _ = fetch(s3, "s3://bucket/model", tmp_path / "model")
    assert (code, out) == (0, f"s3://bucket/model: 3 files, 12.6 MB, in {tmp_path / 'model'}; all of it was there\n")


def test_patterns_choose_files(s3: FaultyS3, tmp_path: Path) -> None:
    code, _, err = fetch(s3, "s3://bucket/model/", tmp_path / "t", "--include", "*.json", "--include", "*.md")
    assert code == 0, err
    assert set(files_of(tmp_path / "t")) == {"config.json", "README.md"}


def test_one_object_is_one_file(s3: FaultyS3, tmp_path: Path) -> None:
    code, _, err = fetch(s3, "s3://bucket/model/model.safetensors", tmp_path / "t")
    assert code == 0, err
    assert set(files_of(tmp_path / "t")) == {"model.safetensors"}


def test_a_directory_is_copied(s3: FaultyS3, tmp_path: Path) -> None:
    code, out, err = fetch(s3, tmp_path / "s3" / "bucket" / "model", tmp_path / "t")
    assert code == 0, err
    assert files_of(tmp_path / "t") == NEEDED
    assert "3 without a checksum at the source" in out


def test_verification_can_be_switched_off(s3: FaultyS3, tmp_path: Path) -> None:
    s3.inject(Fault("flip", key="model/model.safetensors", offset=5 * MIB))
    code, out, err = fetch(s3, "s3://bucket/model", tmp_path / "t", "--no-verify")
    assert code == 0, err
    assert "; not verified;" in out
    assert files_of(tmp_path / "t") != NEEDED
    assert not any(record.operation == "HeadObject" for record in s3.requests())


def test_what_cannot_be_fetched_exits_1_with_one_sentence(s3: FaultyS3, tmp_path: Path) -> None:
    code, out, err = fetch(s3, "s3://bucket/nothing/", tmp_path / "t")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("bloomery: s3://bucket/nothing/ holds no objects")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("value", ["0", "many", "257"])
def test_a_wrong_setting_exits_2(s3: FaultyS3, tmp_path: Path, value: str) -> None:
    code, _, err = fetch(s3, "s3://bucket/model", tmp_path / "t", BLOOMERY_FETCH_CONNECTIONS=value)
    assert code == 2
    assert f"bloomery: BLOOMERY_FETCH_CONNECTIONS='{value}' is no number from 1 to 256" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("resume", [True, False])
def test_a_signal_ends_it_at_once_and_the_next_one_goes_on(
    s3: FaultyS3, tmp_path: Path, number: signal.Signals, resume: bool
) -> None:
    target = tmp_path / "t"
    arguments = ["s3://bucket/model", target, *([] if resume else ["--no-resume"])]
    # What stalls would stall for longer than the test waits.
    small = {
        "BLOOMERY_FETCH_PART_MIB": "1",
        "BLOOMERY_FETCH_CONNECTIONS": "4",
        "BLOOMERY_STALL_TIMEOUT": "300",
    }
    s3.inject(Fault("stall", key="model/model.safetensors", skip=6, after_bytes=1000))
    with start(s3, *arguments, **small) as process:
        journal = target / ".fetching" / "journal"
        end = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 8):  # two small files, six parts
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert target.exists() == resume
    assert not resume or files_of(target) == {}
    s3.heal()
    s3.forget()
    code, out, err = fetch(s3, *arguments, **small)
    assert code == 0, err
    assert files_of(target) == NEEDED
    assert ("6.3 MB read" in out) == resume
    assert not (target / ".fetching").exists()


def test_a_terminal_sees_a_bar_instead_of_a_log_and_whom_it_waits_for(s3: FaultyS3, tmp_path: Path) -> None:
    s3.inject(Fault("rate", key="model/model.safetensors", rate=8 * MIB))
    lock = FileLock(tmp_path / "t" / ".fetching.lock")
    assert lock.acquired()
    ours, theirs = pty.openpty()
    try:
        with start(s3, "s3://bucket/model", tmp_path / "t", stderr=theirs, TERM="xterm", COLUMNS="400") as process:
            os.close(theirs)
            shown = b""
            try:
                while data := os.read(ours, 1 << 16):
                    shown += data
                    if b"waiting for another" in shown:
                        lock.release()
            except OSError:  # the terminal is closed at the other end
                pass
            process.wait(60)
    finally:
        os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "waiting for another process to fetch the checkpoint" in text
    assert "/12.6 MB" in text
    assert "MB/s" in text
    assert "fetching checkpoint" not in text
