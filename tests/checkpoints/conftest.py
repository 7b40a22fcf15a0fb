from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.faulty_s3 import FaultyS3
from tests.support.faulty_s3.environment import FOREIGN, client_environment
from tests.support.safetensors_file import safetensors_bytes

WEIGHTS = safetensors_bytes(300_000)
CHECKPOINT = {
    "config.json": b'{"model_type": "bloom"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle of the same weights",
    "tokenizer/vocab.txt": b"To\nbe",
    "empty.txt": b"",
}


class Bucket:
    """The objects of s3://bucket, and the server that gives them out."""

    def __init__(self, directory: Path, server: FaultyS3) -> None:
        self._directory, self.server = directory, server

    def put(self, objects: dict[str, bytes], prefix: str = "model") -> str:
        """Their common URI."""
        for name, data in objects.items():
            path = self._directory / prefix / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return f"s3://bucket/{prefix}"

    def delete(self, name: str, prefix: str = "model") -> None:
        (self._directory / prefix / name).unlink()

    @property
    def read(self) -> list[tuple[str, int, int]]:
        """What was asked for: name, first byte and length, in the order of the ends of the answers."""
        found = (item for item in self.server.requests() if item.operation == "GetObject")
        return [(item.key.partition("/")[2], item.start or 0, item.length or 0) for item in found]


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty temporary directory, credentials, and nothing of the machine's own configuration."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for name in (*FOREIGN, "AWS_REQUEST_PAYER", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**client_environment("http://127.0.0.1:9"), "TMPDIR": str(temporary)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)  # read TMPDIR anew
    return temporary


@pytest.fixture
def bucket(aws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An S3 server of this test's own."""
    directory = tmp_path / "s3" / "bucket"
    directory.mkdir(parents=True)
    with FaultyS3(directory.parent) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield Bucket(directory, server)


@pytest.fixture
def read_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[FaultyS3], None]:
    """Makes a server the only S3 there is, for fetches in small parts that give a stall up soon."""

    def use(server: FaultyS3) -> None:
        for name in FOREIGN:
            monkeypatch.delenv(name, raising=False)
        options = {
            "BLOOMERY_FETCH_PART_MIB": "1",
            "BLOOMERY_FETCH_CONNECTIONS": "4",
            "BLOOMERY_STALL_TIMEOUT": "0.5",
        }
        for name, value in (client_environment(server.url) | options).items():
            monkeypatch.setenv(name, value)

    return use
