"""Session: which of the two targets it is, whose keys it uses, and what it says when there is no way there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from tests.support.emulator import REGION, Emulator, emulating

from bloomery.errors import AccessError, CallError, ConfigurationError, TargetError
from bloomery.sagemaker.refusal import in_words
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("emulator") / "state", stand_in=True) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def a_users_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One with keys and a profile that must never reach an emulator."""
    config = tmp_path / "config"
    config.write_text(
        "[default]\nregion = eu-west-1\n[profile here]\nendpoint_url = http://127.0.0.1:9\nregion = eu-west-1\n"
    )
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = USERS\naws_secret_access_key = own\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def keys_of(client: Any) -> str:
    return str(client._request_signer._credentials.access_key)


def test_an_emulator_is_used_with_keys_that_belong_to_nobody(emulator: Emulator) -> None:
    with Session.open("local", endpoint_url=emulator.url, region=REGION) as session:
        assert (session.is_emulator, session.target, session.region) == (True, "local", REGION)
        assert session.account == "123456789012"
        for service in ("sagemaker", "s3", "logs", "pricing"):
            assert keys_of(session.client(service)) == "bloomery-local"
            assert session.client(service).meta.endpoint_url == emulator.url


def test_the_environment_finds_the_emulator_without_a_target(emulator: Emulator) -> None:
    with Session.open(environment={"AWS_ENDPOINT_URL": emulator.url, "AWS_REGION": REGION}) as session:
        assert session.is_emulator
        assert session.region == REGION


def test_an_s3_server_beside_the_emulator_gets_its_own_keys(emulator: Emulator) -> None:
    environment = {
        "AWS_ENDPOINT_URL": emulator.url,
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "of-that-server",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    with Session.open("local", environment=environment) as session:
        assert keys_of(session.client("s3")) == "of-that-server"
        assert session.client("s3").meta.endpoint_url == "http://127.0.0.1:1"
        assert keys_of(session.client("sagemaker")) == "bloomery-local"


def test_its_variables_take_other_clients_to_the_same_place(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the user's")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", "http://127.0.0.1:1")
    with Session.open("local", endpoint_url=emulator.url, region=REGION) as session:
        for name, value in session.variables.items():
            monkeypatch.setenv(name, value)
    for service in ("sagemaker", "s3", "sts"):
        client = boto3.session.Session().client(service)
        assert client.meta.endpoint_url == emulator.url
        assert client.meta.region_name == REGION
        assert keys_of(client) == "bloomery-local"
        assert client._request_signer._credentials.token is None
        client.close()


def test_variables_of_aws_leave_the_keys_where_they_are() -> None:
    with Session.open(environment={}) as session:
        assert session.variables == {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}


def test_without_an_endpoint_it_is_aws_with_the_users_configuration() -> None:
    with Session.open(environment={}) as session:
        assert (session.is_emulator, session.region, session.partition) == (False, "eu-west-1", "aws")
        assert keys_of(session.client("sagemaker")) == "USERS"
        assert session.client("pricing").meta.region_name == "us-east-1"


def test_a_private_endpoint_elsewhere_is_aws() -> None:
    url = "https://vpce-1.api.sagemaker.eu-west-1.vpce.amazonaws.com"
    with Session.open(environment={"AWS_ENDPOINT_URL_SAGEMAKER": url}) as session:
        assert not session.is_emulator


def test_invocations_are_sent_once_and_wait_longer_than_a_container_may_take() -> None:
    with Session.open(environment={}) as session:
        for client, seconds in ((session.runtime, 70), (session.streaming_runtime, 500)):
            assert client.meta.config.read_timeout == seconds
            assert client.meta.config.retries["total_max_attempts"] == 1


def test_a_request_is_sent_as_it_was_shown(emulator: Emulator) -> None:
    request = Request("sagemaker", "ListEndpoints", {"MaxResults": 1})
    assert request.to_dict() == {
        "service": "sagemaker",
        "operation": "ListEndpoints",
        "parameters": {"MaxResults": 1},
    }
    with Session.open("local", endpoint_url=emulator.url) as session:
        assert session.send(request)["Endpoints"] == []


def test_a_refusal_carries_the_code(emulator: Emulator) -> None:
    with Session.open("local", endpoint_url=emulator.url) as session, pytest.raises(CallError) as caught:
        session.call("sagemaker", "DescribeEndpoint", EndpointName="none")
    assert caught.value.code == "ValidationException"
    assert 'DescribeEndpoint: Could not find endpoint "arn:' in str(caught.value)


def test_no_emulator_there() -> None:
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(TargetError, match="run `bloomery sagemaker-local`") as caught:
            Session.open("local", endpoint_url=url)
    assert url in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)  # the exit code 2


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ({"target": "cloud"}, {}, "must be aws or local"),
        ({"target": "aws"}, {"AWS_ENDPOINT_URL": "http://localhost:8099"}, "unset AWS_ENDPOINT_URL"),
        ({"target": "aws", "endpoint_url": "http://10.0.0.1:1"}, {}, "leave --endpoint-url out"),
        ({"target": "aws", "profile": "here"}, {}, "endpoint_url is http://127.0.0.1:9: use --target local"),
        ({"target": "local", "profile": "x"}, {}, "belongs to AWS"),
        ({"profile": "nobody"}, {}, r"\(nobody\) could not be found.*list-profiles"),
        ({"endpoint_url": "nonsense"}, {}, "an emulator's is like http://127.0.0.1:8099"),
    ],
)
def test_what_cannot_be_opened(arguments: dict[str, str], environment: dict[str, str], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        Session.open(**arguments, environment=environment)


def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(TargetError, match="no region: give --region"):
        Session.open("aws", environment={})


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("ExpiredToken", TargetError, "have expired.*aws sso login"),
        ("UnrecognizedClientException", TargetError, "does not take your credentials"),
        ("AccessDeniedException", AccessError, "not allowed.*bloomery policies"),
        ("ValidationException", CallError, r"not allowed \(ValidationException\)"),
    ],
)
def test_refusals_in_words(code: str, kind: type[Exception], words: str) -> None:
    from botocore.exceptions import ClientError

    error = in_words(ClientError({"Error": {"Code": code, "Message": "not allowed"}}, "CreateModel"), "sagemaker X")
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error
