"""A user's own handler finds in model_id the directory of what lies in S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.support.certificates import make_certificate
from tests.support.server import model_directory, serving
from tests.support.web_server import files, web_server

from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.manifest import Listed
from djl_python.model_source import localise

HANDLER = """
from pathlib import Path
from djl_python import Output

found = {}

def handle(inputs):
    if inputs.is_empty():
        where = Path(inputs.get_properties()["model_id"])
        found.update({str(path.relative_to(where)): path.read_text() for path in where.rglob("*.txt")})
        return None
    return Output().add_as_json(found)
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """The environment of a client of a real S3 server that holds s3://store/words/."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="store")
    client.put_object(Bucket="store", Key="words/deep/hamlet.txt", Body=b"To be")
    yield {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server.stop()


@pytest.mark.parametrize("key", ["option.model_id", "option.s3url"])
def test_an_s3_source_is_a_directory_before_the_handler_is_called(
    tmp_path: Path, aws: dict[str, str], key: str
) -> None:
    directory = model_directory(tmp_path / "own", HANDLER, f"engine=Python\n{key}=s3://store/words/\n")
    with serving(directory, env=aws) as server:
        assert server.post({}).json() == {"deep/hamlet.txt": "To be"}


def test_what_cannot_be_fetched_is_the_reason_why_the_model_fails(tmp_path: Path, aws: dict[str, str]) -> None:
    directory = model_directory(tmp_path / "own", HANDLER, "engine=Python\noption.model_id=s3://store/absent/\n")
    with serving(directory, env=aws, ready=False) as server:
        assert server.wait() == 1
        assert "s3://store/absent" in server.err.read_text().partition("what:")[2]


def test_a_web_directory_is_a_directory_too(tmp_path: Path) -> None:
    listed = {"hamlet.txt": Listed(5, None, None)}
    content = {"/words/MANIFEST.json": manifest.written(listed), "/words/hamlet.txt": b"To be"}
    certificate = make_certificate(tmp_path)
    with web_server(files(content), certificate) as site:
        directory = model_directory(tmp_path / "own", HANDLER, f"engine=Python\noption.model_id={site.url}/words/\n")
        with serving(directory, env={"SSL_CERT_FILE": str(certificate[0])}) as server:
            assert server.post({}).json() == {"hamlet.txt": "To be"}


def test_other_sources_are_left_alone() -> None:
    properties = {"model_id": "facebook/opt-125m", "other": 1}
    localise(properties)
    assert properties == {"model_id": "facebook/opt-125m", "other": 1}
