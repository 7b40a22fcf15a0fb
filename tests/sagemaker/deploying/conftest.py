"""One emulator for the whole room, whose containers are echoes; a session, an archive in its S3, and faults."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.emulator import REGION, REPOSITORY, ROLE, Emulator, emulating

from bloomery.sagemaker.deploying import Deployment
from bloomery.sagemaker.session import Session

ECHO = ("--image", f"^echo={sys.executable} {REPOSITORY / 'tests' / 'support' / 'echo_container.py'}")
TYPE, BUCKET = "ml.m5.xlarge", "deploying-tests"


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    directory = tmp_path_factory.mktemp("deploying")
    tables = directory / "tables.json"
    tables.write_text(json.dumps({"quotas": {"ml.p4d.24xlarge": 0}, "prices": {TYPE: {REGION: 0.25}}}))
    with emulating(directory / "state", *ECHO, "--tables", str(tables)) as running:
        yield running


@pytest.fixture(scope="session")
def session(emulator: Emulator) -> Iterator[Session]:
    with Session.open("local", endpoint_url=emulator.url, region=REGION, environment={}) as opened:
        opened.call("s3", "CreateBucket", Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield opened


@pytest.fixture
def name() -> str:
    """A name of this test's own."""
    return f"d{uuid.uuid4().hex[:12]}"


def tar_of(files: dict[str, bytes], *, zipped: bool = True) -> bytes:
    """An archive's bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue()) if zipped else buffer.getvalue()


@pytest.fixture(scope="session")
def put(session: Session) -> Callable[[str, bytes], str]:
    """Puts an object into the bucket; its URI."""

    def put(key: str, body: bytes) -> str:
        session.call("s3", "PutObject", Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    return put


@pytest.fixture(scope="session")
def archive(put: Callable[[str, bytes], str]) -> str:
    """The URI of one that SageMaker takes."""
    return put("good/model.tar.gz", tar_of({"serving.properties": b"engine=Python\n"}))


@pytest.fixture
def wanted(name: str, archive: str) -> Deployment:
    return Deployment(name, (TYPE,), archive, image="echo", role=ROLE)


@pytest.fixture
def fault(emulator: Emulator) -> Iterator[Callable[..., None]]:
    """Adds a rule of what goes wrong, for the length of the test."""
    url = f"{emulator.url}/_bloomery/faults"

    def add(kind: str, **rule: Any) -> None:
        body = json.dumps({"kind": kind, **rule}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=10):
            pass

    yield add
    with urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10):
        pass


def left(session: Session, name: str) -> list[str]:
    """What of ``name`` is in the account."""
    found = []
    for kind, member in (
        ("Models", "ModelName"),
        ("EndpointConfigs", "EndpointConfigName"),
        ("Endpoints", "EndpointName"),
    ):
        answer = session.call("sagemaker", f"List{kind}", NameContains=name)
        found += [each[member] for each in answer[kind]]
    return found
