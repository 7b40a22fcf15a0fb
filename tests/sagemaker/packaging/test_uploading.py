"""An archive's way to S3, on the emulator's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sagemaker.packaging.conftest import MODEL, Writer
from tests.support.emulator import Emulator, emulating, environment

from bloomery.errors import PackagingError
from bloomery.sagemaker.packaging import package, upload
from bloomery.sagemaker.session import Session


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("emulator") / "state", stand_in=True) as running:
        running.client("s3").create_bucket(
            Bucket="models", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
        )
        yield running


@pytest.fixture
def session(emulator: Emulator) -> Iterator[Session]:
    with Session.open(endpoint_url=emulator.url, region="us-west-2") as opened:
        yield opened


@pytest.fixture
def puts(session: Session) -> list[str]:
    """Keys of what is sent."""
    sent: list[str] = []

    def note(params: dict[str, Any], **_: object) -> None:
        sent.append(params["Key"])

    session.client("s3").meta.events.register("provide-client-params.s3.PutObject", note)
    return sent


def test_it_is_sent_once(session: Session, puts: list[str], write: Writer, tmp_path: Path) -> None:
    archive = package(write({"model.py": MODEL}), tmp_path / "model.tar.gz")
    assert archive.path
    uri = upload(archive, "s3://models/bloom/v1", session)
    assert uri == f"s3://models/bloom/v1/code-{archive.sha256[:16]}/model.tar.gz"
    assert upload(archive, "s3://models/bloom/v1/", session) == uri
    assert puts == [uri.removeprefix("s3://models/")]
    stored = session.client("s3").get_object(Bucket="models", Key=puts[0])["Body"].read()
    assert stored == archive.path.read_bytes()

    (tmp_path / "code" / "model.py").write_text(MODEL + "# changed\n")
    assert upload(package(tmp_path / "code", archive.path), "s3://models/bloom/v1/", session) != uri
    assert len(puts) == 2


def test_what_was_cut_short_is_sent_again(session: Session, puts: list[str], write: Writer, tmp_path: Path) -> None:
    archive = package(write({"model.py": MODEL + "# other\n"}), tmp_path / "model.tar.gz")
    key = upload(archive, "s3://models/", session).removeprefix("s3://models/")
    session.client("s3").put_object(Bucket="models", Key=key, Body=b"half")
    upload(archive, "s3://models/", session)
    assert session.client("s3").head_object(Bucket="models", Key=key)["ContentLength"] == archive.size


def test_an_archive_that_was_changed_meanwhile(session: Session, write: Writer, tmp_path: Path) -> None:
    archive = package(write({"model.py": MODEL + "# third\n"}), tmp_path / "model.tar.gz")
    assert archive.path
    data = archive.path.read_bytes()
    archive.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackagingError, match="has changed since it was made"):
        upload(archive, "s3://models/", session)


def test_a_bucket_that_is_not_there(session: Session, write: Writer, tmp_path: Path) -> None:
    archive = package(write({"model.py": MODEL}), tmp_path / "model.tar.gz")
    with pytest.raises(PackagingError, match=r"s3://nobodys does not exist.*aws s3 mb s3://nobodys --region us-west-2"):
        upload(archive, "s3://nobodys/x/", session)


@pytest.mark.parametrize("uri", ["models/x", "s3://", "https://models/x", "s3://models/../x/"])
def test_what_is_no_place_in_s3(session: Session, write: Writer, uri: str, tmp_path: Path) -> None:
    archive = package(write({"model.py": MODEL}), tmp_path / "model.tar.gz")
    with pytest.raises(PackagingError, match="write s3://bucket/prefix/"):
        upload(archive, uri, session)


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bloomery", "package", *arguments]
    return subprocess.run(command, cwd=directory, env=environment(), capture_output=True, text=True, timeout=60)


def test_the_command(emulator: Emulator, write: Writer) -> None:
    directory = write({"model.py": MODEL, "serving.properties": "option.dtyp=fp16\n", ".git/config": ""})
    done = run(
        directory.parent,
        *("code", "--top", "code", "--upload", "s3://models/cli/"),
        *("--endpoint-url", emulator.url, "--region", "us-west-2"),
    )
    assert done.returncode == 0, done.stderr
    assert "serving.properties:1: warning: option.dtyp" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["  code/model.py", "  code/serving.properties", "left out: .git/"]
    assert lines[-1].startswith("in S3 as s3://models/cli/code-")
    key = lines[-1].partition("s3://models/")[2]
    stored = emulator.client("s3").get_object(Bucket="models", Key=key)["Body"].read()
    assert stored == (directory.parent / "model.tar.gz").read_bytes()


def test_the_command_without_doing_it(write: Writer) -> None:
    directory = write({"model.py": MODEL})
    done = run(directory.parent, "code", "--dry-run", "--json", "--upload", "s3://models/cli/")
    told = json.loads(done.stdout)
    assert told["path"] is None
    assert told["uri"] == f"s3://models/cli/code-{told['sha256'][:16]}/model.tar.gz"
    assert sorted(path.name for path in directory.parent.iterdir()) == ["code"]


def test_the_command_refuses(write: Writer) -> None:
    directory = write({"model.py": "def handle(\n", "weights.bin": "x"})
    done = run(directory.parent, "code")
    assert done.returncode == 1
    assert done.stderr.startswith("bloomery: code is not packaged, 2 things are wrong:\n  model.py:1: error: ")
    told = json.loads(run(directory.parent, "code", "--json").stdout)
    assert [each["path"] for each in told["findings"]] == ["model.py", "weights.bin"]
