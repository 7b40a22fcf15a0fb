"""Fetching from S3 servers that others wrote. Ours might share a misunderstanding with our client; these do not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscrt import checksums
from tests.support import s3_servers
from tests.support.faulty_s3.environment import FOREIGN, client_environment
from tests.support.safetensors_file import safetensors_bytes

from bloomery import checkpoints
from bloomery.checkpoints.uploading.upload import upload

pytestmark = pytest.mark.full
FILES = {
    "config.json": b'{"model_type": "bloom"}',
    "model-00001-of-00002.safetensors": safetensors_bytes((40 << 20) + 12345),
    "model-00002-of-00002.safetensors": safetensors_bytes(17 << 20),
    "tokenizer/a name with spaces+.txt": b"To\nbe",
    "empty.txt": b"",
}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a URL the S3 of this test."""

    def point(url: str) -> None:
        for name in FOREIGN:
            monkeypatch.delenv(name, raising=False)
        for name, value in client_environment(url).items():
            monkeypatch.setenv(name, value)

    return point


@pytest.fixture
def client() -> Iterator[Any]:
    opened: list[Any] = []

    def make(url: str) -> Any:
        opened.append(boto3.session.Session().client("s3", endpoint_url=url))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def files_of(path: Path) -> dict[str, bytes]:
    found = (path / name for name in FILES)
    return {str(file.relative_to(path)): file.read_bytes() for file in found if file.is_file()}


def test_rclone_serves_every_byte(tmp_path: Path, at: Any) -> None:
    root = tmp_path / "served"
    for name, data in FILES.items():
        path = root / "models" / "bloom" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with s3_servers.rclone(root, tmp_path / "log") as url:
        at(url)
        assert files_of(checkpoints.fetch("s3://models/bloom", directory=tmp_path)) == FILES


def test_seaweedfs_serves_every_byte_and_its_checksums_are_ours(tmp_path: Path, at: Any, client: Any) -> None:
    (tmp_path / "volumes").mkdir()
    with s3_servers.seaweedfs(tmp_path / "volumes", tmp_path / "log") as url:
        at(url)
        s3 = client(url)
        s3.create_bucket(Bucket="models")
        for name, data in FILES.items():
            s3.put_object(Bucket="models", Key=f"bloom/{name}", Body=data, ChecksumAlgorithm="CRC64NVME")
        fetched = checkpoints.fetch("s3://models/bloom", directory=tmp_path)
        assert files_of(fetched) == FILES
        for name in FILES:
            head = s3.head_object(Bucket="models", Key=f"bloom/{name}", ChecksumMode="ENABLED")
            value = checksums.crc64nvme((fetched / name).read_bytes())
            assert head["ChecksumCRC64NVME"] == base64.b64encode(value.to_bytes(8, "big")).decode()


@pytest.mark.parametrize("name", ["rclone", "seaweedfs"])
def test_what_is_uploaded_is_there_and_not_sent_again(tmp_path: Path, at: Any, client: Any, name: str) -> None:
    for file, data in FILES.items():
        path = tmp_path / "model" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "data" / "models").mkdir(parents=True)
    with getattr(s3_servers, name)(tmp_path / "data", tmp_path / "log") as url:
        at(url)
        if name == "seaweedfs":
            client(url).create_bucket(Bucket="models")

        first = upload(tmp_path / "model", "s3://models/opt", part=5 << 20)
        second = upload(tmp_path / "model", "s3://models/opt", part=5 << 20)
        path = checkpoints.fetch("s3://models/opt", directory=tmp_path)

    assert first.sent == sum(map(len, FILES.values()))
    # rclone keeps no checksum of what comes in parts: it is said, and what cannot be compared is sent again.
    unknown = [] if name == "seaweedfs" else [name for name in sorted(FILES) if len(FILES[name]) > 5 << 20]
    assert first.unconfirmed == unknown
    assert second.sent == sum(len(FILES[name]) for name in unknown)
    assert files_of(path) == FILES
