"""``upload``: what is in S3 afterwards, what is sent twice, and what is left by one that fails."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awscrt.checksums import crc64nvme
from botocore.exceptions import ConnectionClosedError
from tests.support.faulty_s3 import Fault, FaultyS3, Record
from tests.support.faulty_s3.environment import FOREIGN, client_environment

from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.uploading import s3_target
from bloomery.checkpoints.uploading.s3_target import S3Target
from bloomery.checkpoints.uploading.upload import Report, upload
from bloomery.errors import CheckpointError, ConfigurationError

PART = 5 << 20
WEIGHTS = os.urandom((17 << 20) + 3)  # four parts
FILES = {"config.json": b"{}", "empty.txt": b"", "tokenizer/vocab.txt": b"To\nbe", "model.safetensors": WEIGHTS}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    (tmp_path / "s3" / "models").mkdir(parents=True)
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    with FaultyS3(tmp_path / "s3", with_checksums=False) as server:
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, data in {**FILES, ".cache/blob": b"hidden", "__pycache__/model.pyc": b"compiled"}.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "model"


def objects(server: FaultyS3) -> dict[str, bytes]:
    return {
        key.removeprefix("opt/"): server.objects.get("models", key).path.read_bytes()
        for key in server.objects.keys("models")
    }


def settled(server: FaultyS3) -> list[Record]:
    """All requests; the server notes one a moment after it has answered."""
    found = server.requests()
    while True:
        time.sleep(0.1)
        if len(now := server.requests()) == len(found):
            return now
        found = now


def did(server: FaultyS3) -> Counter[str]:
    """The operations that changed something, since the last look."""
    found = Counter(record.operation for record in settled(server) if record.method in ("PUT", "POST", "DELETE"))
    server.forget()
    return found


def send(directory: Path, **options: object) -> Report:
    return upload(directory, "s3://models/opt/", part=PART, connections=4, **options)  # type: ignore[arg-type]


def test_every_file_is_there_with_its_checksum_and_the_manifest_is_last(server: FaultyS3, directory: Path) -> None:
    report = send(directory)

    found = objects(server)
    listed = manifest.read(found.pop("MANIFEST.json"), "MANIFEST.json")
    assert found == FILES
    assert listed == {
        name: manifest.Listed(len(data), crc64nvme(data), hashlib.sha256(data).hexdigest())
        for name, data in FILES.items()
    }
    assert settled(server)[-1].key == "opt/MANIFEST.json"
    assert (report.sent, report.found, report.unconfirmed) == (sum(map(len, FILES.values())), 0, [])
    for name in FILES:
        item = server.objects.get("models", f"opt/{name}")
        assert (item.kind, list(item.checksums)) == ("FULL_OBJECT", ["crc64nvme"]), name
    assert not list(server.objects.uploads("models"))


def test_what_is_there_and_equal_is_not_sent_again(server: FaultyS3, directory: Path) -> None:
    send(directory)
    did(server)

    again = send(directory)

    assert (again.sent, did(server)) == (0, Counter())
    assert all(step.there for step in again.steps)
    (directory / "config.json").write_bytes(b"[]")  # of the same size
    changed = send(directory)
    assert [step.file.name for step in changed.steps if not step.there] == ["config.json"]
    assert did(server) == {"PutObject": 3}  # the manifest is emptied first and comes last
    assert objects(server)["config.json"] == b"[]"


def test_a_dry_run_changes_nothing(server: FaultyS3, directory: Path) -> None:
    (directory.parent / "s3" / "models" / "opt").mkdir()
    (directory.parent / "s3" / "models" / "opt" / "model-00001-of-00009.safetensors").write_bytes(
        b"of a former version"
    )

    report = send(directory, dry_run=True)

    assert did(server) == Counter()
    assert not any(step.there for step in report.steps)
    assert report.others == ["model-00001-of-00009.safetensors"]


def test_an_interrupted_upload_goes_on_with_the_parts_that_are_missing(server: FaultyS3, directory: Path) -> None:
    server.inject(Fault("error", "UploadPart", skip=2, status=403, code="AccessDenied"))
    with pytest.raises(CheckpointError, match=r"model.safetensors, part \d could not be written: access is denied"):
        send(directory)
    assert "MANIFEST.json" not in objects(server)
    assert "model.safetensors" not in objects(server)
    server.heal()
    did(server)

    report = send(directory)

    assert did(server)["UploadPart"] == 2
    assert report.found == len(FILES["model.safetensors"]) - report.sent + sum(
        len(FILES[step.file.name]) for step in report.steps if not step.there and step.file.name != "model.safetensors"
    )
    assert objects(server)["model.safetensors"] == WEIGHTS


def test_parts_of_other_content_are_not_taken(server: FaultyS3, directory: Path) -> None:
    server.inject(Fault("error", "CompleteMultipartUpload", status=403, code="AccessDenied"))
    with pytest.raises(CheckpointError):
        send(directory)
    server.heal()
    did(server)
    changed = bytearray(WEIGHTS)
    changed[7 << 20] ^= 1
    (directory / "model.safetensors").write_bytes(changed)

    send(directory)

    assert did(server)["UploadPart"] == 1
    assert objects(server)["model.safetensors"] == changed


def test_without_resume_nothing_is_left_in_s3(server: FaultyS3, directory: Path) -> None:
    server.inject(Fault("error", "UploadPart", skip=2, status=403, code="AccessDenied"))
    with pytest.raises(CheckpointError):
        send(directory)
    assert len(list(server.objects.uploads("models"))) == 1

    with pytest.raises(CheckpointError):
        send(directory, resume=False)
    assert not list(server.objects.uploads("models"))


def test_bursts_of_slow_down_and_broken_connections_are_survived(server: FaultyS3, directory: Path) -> None:
    server.inject(
        Fault("error", "*", fraction=0.3), Fault("reset", "UploadPart", every=3), Fault("reset", "PutObject", every=2)
    )
    send(directory)
    server.heal()
    found = objects(server)
    assert {name: found[name] for name in FILES} == FILES


def test_a_stalled_server_is_given_up_in_words(
    server: FaultyS3, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_target, "SECONDS", 0.3)
    monkeypatch.setattr(s3_target, "PATIENCE", 1.0)
    server.inject(Fault("stall", "UploadPart"))
    with pytest.raises(CheckpointError, match=r"s3://models/opt/model.safetensors, part \d.*given up after"):
        send(directory)


def test_an_answer_that_was_lost_after_the_work_was_done_is_no_failure(
    server: FaultyS3, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 completes an object in parts once; who asks again hears that there is no such upload."""
    call, lost = S3Target._call, []

    def losing(self: S3Target, operation: str, name: str, **arguments: Any) -> dict[str, Any]:
        answer = call(self, operation, name, **arguments)
        if operation == "complete_multipart_upload" and not lost:
            lost.append(name)
            raise ConnectionClosedError(endpoint_url="http://s3")
        return answer

    monkeypatch.setattr(S3Target, "_call", losing)
    send(directory)
    assert lost == ["model.safetensors"]
    assert objects(server)["model.safetensors"] == WEIGHTS


def test_s3_that_has_something_else_is_believed_when_it_says_so(
    server: FaultyS3, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Target, "complete", lambda self, name, *_: self._agreed(name, 1, 2))
    with pytest.raises(CheckpointError, match="S3 has the CRC64NVME 0000000000000001 of it"):
        send(directory)


def test_a_file_that_is_damaged_by_its_own_manifest_is_not_sent(server: FaultyS3, directory: Path) -> None:
    listed = {name: manifest.Listed(len(data), crc64nvme(data), None) for name, data in FILES.items()}
    (directory / "MANIFEST.json").write_bytes(manifest.written(listed))
    damaged = bytearray(WEIGHTS)
    damaged[100] ^= 1
    (directory / "model.safetensors").write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"model.safetensors is not what MANIFEST.json beside it says"):
        send(directory)
    assert "model.safetensors" not in objects(server)


def test_links_that_leave_the_directory_are_refused(server: FaultyS3, directory: Path) -> None:
    (directory / "same.txt").symlink_to(directory / "config.json")
    send(directory)
    assert objects(server)["same.txt"] == FILES["config.json"]
    (directory / "hosts").symlink_to("/etc/hosts")
    with pytest.raises(CheckpointError, match=r"hosts is a link to /etc/hosts, which is outside"):
        send(directory)


def test_an_interrupted_command_stops_soon_and_keeps_its_parts(server: FaultyS3, directory: Path) -> None:
    server.inject(Fault("error", "UploadPart", skip=1))  # SlowDown, for ever
    target = []
    original = S3Target.__init__

    def remembered(self: S3Target, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        target.append(self)

    def cancel() -> None:
        while sum(record.operation == "UploadPart" for record in server.requests()) < 4:
            time.sleep(0.01)
        target[0].cancelled.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Target, "__init__", remembered)
        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(CheckpointError, match="cancelled"):
            send(directory)
        thread.join()
    assert len(list(server.objects.uploads("models"))) == 1


@pytest.mark.parametrize(("uri", "error"), [("/tmp/x", ConfigurationError), ("s3://", CheckpointError)])
def test_an_address_that_is_none_is_refused(directory: Path, uri: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="write s3://bucket/prefix"):
        upload(directory, uri)


def test_refusals_name_the_bucket_and_the_rights(server: FaultyS3, directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the bucket nowhere does not exist"):
        upload(directory, "s3://nowhere/opt")
    server.inject(Fault.denied("PutObject"))
    with pytest.raises(CheckpointError, match=r"could not be written: access is denied.*s3:PutObject"):
        send(directory)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match="holds no files"):
        upload(tmp_path / "nothing", "s3://models/opt")


def test_a_role_that_may_not_list_uploads_still_uploads(server: FaultyS3, directory: Path) -> None:
    server.inject(Fault.denied("ListMultipartUploads"))
    assert send(directory).sent == sum(map(len, FILES.values()))
