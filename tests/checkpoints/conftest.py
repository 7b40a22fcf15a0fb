from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.support.s3_proxy import S3Proxy, s3_proxy

CHECKPOINT = {
    "config.json": b'{"model_type": "bloom"}',
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"a pickle of the same weights",
    "tokenizer/vocab.txt": b"To\nbe",
    "empty.txt": b"",
}


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A real HTTP server that speaks S3."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def aws(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Credentials, the endpoint, and an empty temporary directory; nothing of the machine's own configuration."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "TMPDIR": str(temporary),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)  # read TMPDIR anew
    return temporary


@pytest.fixture
def upload(aws: Path, s3_port: int, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Puts objects into a bucket of this test's own, below ``model/``; ``upload.bucket`` is its name."""
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_port}", region_name="us-east-1")
    bucket = f"bucket-{abs(hash(request.node.nodeid)):x}"
    client.create_bucket(Bucket=bucket)

    def put(objects: dict[str, bytes], prefix: str = "model/") -> str:
        for name, data in objects.items():
            client.put_object(Bucket=bucket, Key=prefix + name, Body=data)
        return f"s3://{bucket}/{prefix.rstrip('/')}"

    put.client, put.bucket = client, bucket  # type: ignore[attr-defined]
    yield put
    client.close()


@pytest.fixture
def proxy(aws: Path, s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """Stands between ``fetch`` and the server."""
    with s3_proxy(s3_port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy
