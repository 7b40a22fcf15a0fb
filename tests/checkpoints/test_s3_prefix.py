from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.checkpoints.conftest import CHECKPOINT
from tests.support.s3_proxy import S3Proxy

from bloomery import checkpoints
from bloomery.errors import CheckpointError, ConfigurationError
from bloomery.processes import rank

CONTAINER = Path(__file__).parents[2] / "container"
FETCH = "import sys; from bloomery import checkpoints; print(checkpoints.fetch(sys.argv[1]))"
DEADLINE = 60.0


def files_of(path: Path) -> dict[str, bytes]:
    found = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def start_fetch(uri: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CONTAINER)}
    return subprocess.Popen([sys.executable, "-c", FETCH, uri], env=environment, stdout=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        time.sleep(0.01)


def test_a_prefix_arrives_in_the_temporary_directory_without_duplicate_weights(upload: Any, aws: Path) -> None:
    path = checkpoints.fetch(upload(CHECKPOINT))
    assert path.parent == aws
    assert path.name.startswith("model-")
    assert files_of(path) == {name: data for name, data in CHECKPOINT.items() if name != "pytorch_model.bin"}


def test_a_directory_can_be_named(upload: Any, tmp_path: Path) -> None:
    assert checkpoints.fetch(upload(CHECKPOINT), directory=tmp_path / "here").parent == tmp_path / "here"


def test_pickles_are_taken_when_there_is_nothing_else(upload: Any) -> None:
    path = checkpoints.fetch(upload({"config.json": b"{}", "pytorch_model.bin": b"weights"}))
    assert set(files_of(path)) == {"config.json", "pytorch_model.bin"}


def test_pickles_that_the_security_controls_forbid_are_not_served(upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_PICKLE_FILES")
    uri = upload(CHECKPOINT)
    assert not list(checkpoints.fetch(uri).glob("*.bin"))  # safetensors make them needless
    pickled = upload({"config.json": b"{}", "pytorch_model.bin": b"x"}, "pickled/")
    with pytest.raises(ConfigurationError, match="is forbidden by DISALLOW_PICKLE_FILES"):
        checkpoints.fetch(pickled)


def test_patterns_choose_the_files(upload: Any) -> None:
    path = checkpoints.fetch(upload(CHECKPOINT), allow_patterns=["*.bin"])
    assert set(files_of(path)) == {"pytorch_model.bin"}


def test_a_prefix_is_a_folder(upload: Any) -> None:
    upload({"config.json": b"other"}, prefix="model-30b/")
    path = checkpoints.fetch(upload({"config.json": b"mine"}))
    assert files_of(path) == {"config.json": b"mine"}


def test_different_sources_do_not_mix(upload: Any) -> None:
    first = checkpoints.fetch(upload({"config.json": b"1"}, prefix="a/model/"))
    second = checkpoints.fetch(upload({"config.json": b"2"}, prefix="b/model/"))
    assert (files_of(first), files_of(second)) == ({"config.json": b"1"}, {"config.json": b"2"})


def test_what_is_there_is_not_fetched_again(upload: Any, proxy: S3Proxy) -> None:
    uri = upload(CHECKPOINT)
    first = checkpoints.fetch(uri)
    read = list(proxy.objects_read)
    assert len(read) == len(CHECKPOINT) - 1
    assert checkpoints.fetch(uri + "/") == first
    assert proxy.objects_read == read


def test_a_changed_object_is_fetched_anew_and_a_lost_one_removed(upload: Any, proxy: S3Proxy) -> None:
    uri = upload(CHECKPOINT)
    checkpoints.fetch(uri)
    upload({"model.safetensors": b"WEIGHTS" * 1000})  # as long as before: only the ETag tells
    upload.client.delete_object(Bucket=upload.bucket, Key="model/tokenizer/vocab.txt")
    before = len(proxy.objects_read)
    files = files_of(checkpoints.fetch(uri))
    assert files["model.safetensors"] == b"WEIGHTS" * 1000
    assert "tokenizer/vocab.txt" not in files
    assert len(proxy.objects_read) == before + 1


def test_a_file_that_was_cut_on_the_disk_is_fetched_anew(upload: Any) -> None:
    uri = upload(CHECKPOINT)
    path = checkpoints.fetch(uri)
    (path / "model.safetensors").write_bytes(b"cut")
    assert files_of(checkpoints.fetch(uri))["model.safetensors"] == CHECKPOINT["model.safetensors"]


def test_two_processes_fetch_once(upload: Any, proxy: S3Proxy) -> None:
    uri = upload(CHECKPOINT)
    processes = [start_fetch(uri) for _ in range(2)]
    printed = [process.communicate(timeout=DEADLINE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1]
    assert sorted(proxy.objects_read) == sorted(set(proxy.objects_read))
    assert len(proxy.objects_read) == len(CHECKPOINT) - 1


def test_a_killed_fetch_leaves_nothing_that_looks_whole_and_is_completed_by_the_next(
    upload: Any, aws: Path, proxy: S3Proxy
) -> None:
    weights = os.urandom(4 << 20)
    uri = upload({"config.json": b"{}", "model.safetensors": weights})
    proxy.stall_after = 2 << 20
    process = start_fetch(uri)
    wait_until(lambda: any(part.stat().st_size for part in aws.glob("*/model.safetensors.part")), "the fetch began")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)
    assert not list(aws.glob("*/model.safetensors"))
    proxy.stall_after = None
    assert files_of(checkpoints.fetch(uri)) == {"config.json": b"{}", "model.safetensors": weights}


def test_a_broken_connection_goes_on_where_it_broke(upload: Any, proxy: S3Proxy) -> None:
    weights = os.urandom(4 << 20)
    uri = upload({"config.json": b"{}", "model.safetensors": weights})
    proxy.break_once_after = 2 << 20
    assert files_of(checkpoints.fetch(uri))["model.safetensors"] == weights
    assert proxy.break_once_after is None
    assert len(proxy.objects_read) == 3


def test_progress_is_reported_and_logged(upload: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bloomery"):
        checkpoints.fetch(upload(CHECKPOINT))
    assert "fetching checkpoint s3://" in caplog.text
    assert "MB of " in caplog.text
    status = rank.current.status()
    assert (status.phase, status.percent) == ("fetching checkpoint", 100.0)


def test_an_empty_prefix_is_named(upload: Any) -> None:
    upload({"config.json": b"{}"})
    with pytest.raises(CheckpointError, match=r"s3://bucket-\w+/nothing holds no objects: check the bucket"):
        checkpoints.fetch(f"s3://{upload.bucket}/nothing")


def test_a_bucket_that_does_not_exist_is_named(aws: Path) -> None:
    with pytest.raises(CheckpointError, match="the bucket no-such-bucket does not exist"):
        checkpoints.fetch("s3://no-such-bucket/model")


def test_a_prefix_without_a_model_is_refused(upload: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"is not a model directory: config\.json is not in .* holds .*readme\.txt"
    ):
        checkpoints.fetch(upload({"readme.txt": b"?"}))


def test_missing_credentials_are_named_with_the_remedy(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CheckpointError, match=r"no AWS credentials were found: give .* role, or set AWS_ACCESS_KEY_ID"):
        checkpoints.fetch("s3://bucket/model")


def test_denied_access_says_which_rights_are_needed(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denying(BaseHTTPRequestHandler):
        """A fake: moto grants everybody everything."""

        def do_GET(self) -> None:
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Denying) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(CheckpointError, match="needs s3:ListBucket on bucket and s3:GetObject"):
                checkpoints.fetch("s3://bucket/model")
        finally:
            server.shutdown()
            thread.join()


def test_an_object_that_would_leave_the_directory_is_refused(upload: Any) -> None:
    with pytest.raises(CheckpointError, match="would leave"):
        checkpoints.fetch(upload({"config.json": b"{}", "../../outside.json": b"{}"}))


def test_a_disk_that_is_too_small_is_said_before_fetching(
    upload: Any, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = upload(CHECKPOINT)
    # No small disk can be mounted here, so the answer of the system call is made up.
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(CheckpointError, match=r"needs 0\.0 MB in .*, where 0\.0 MB are free: set TMPDIR"):
        checkpoints.fetch(uri)
    assert proxy.objects_read == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_not_trusted(upload: Any) -> None:
    uri = upload(CHECKPOINT)
    os.chown(checkpoints.fetch(uri), 12345, -1)
    with pytest.raises(CheckpointError, match="belongs to somebody else"):
        checkpoints.fetch(uri)
