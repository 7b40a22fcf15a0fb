"""What is looked at in an account only, with the emulator's moto in the account's place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from tests.support.emulator import REGION, Emulator

from bloomery.cli import deploying as command
from bloomery.errors import ConfigurationError, DeploymentRefusedError, SageMakerError
from bloomery.sagemaker.deploying import Deployment
from bloomery.sagemaker.deploying.making import take_back
from bloomery.sagemaker.deploying.ordering import prepare
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

ACCOUNT = "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


class Account(Session):
    """Takes the emulator for AWS."""

    @property
    def is_emulator(self) -> bool:
        return False

    @property
    def target(self) -> Literal["aws"]:
        return "aws"


@pytest.fixture(scope="module")
def account(emulator: Emulator) -> Iterator[Session]:
    with Account.open("local", endpoint_url=emulator.url, region=REGION, environment={}) as opened:
        for role, service in (("Trusting", "sagemaker.amazonaws.com"), ("Other", "ec2.amazonaws.com")):
            statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            opened.call("iam", "CreateRole", RoleName=role, AssumeRolePolicyDocument=policy)
        yield opened


@pytest.fixture
def plain(wanted: Deployment, session: Session) -> Deployment:
    """``session`` has made the bucket."""
    return replace(wanted, role="Trusting", image="elsewhere/image:1")


def refused(account: Session, wanted: Deployment) -> str:
    with pytest.raises(DeploymentRefusedError) as caught:
        prepare(account, wanted)
    return str(caught.value)


def test_a_role_that_trusts_sagemaker_will_do(account: Session, plain: Deployment) -> None:
    assert prepare(account, plain).wanted.role == f"arn:aws:iam::{ACCOUNT}:role/Trusting"


def test_one_that_does_not_is_refused(account: Session, plain: Deployment) -> None:
    assert "role: Other does not trust sagemaker.amazonaws.com" in refused(account, replace(plain, role="Other"))
    arn = f"arn:aws:iam::{ACCOUNT}:role/Nobody"
    assert f"role: account {ACCOUNT} has no role Nobody" in refused(account, replace(plain, role=arn))


def test_no_role_outside_of_sagemaker(account: Session, plain: Deployment) -> None:
    text = refused(account, replace(plain, role=None))
    assert "role: none is given, and this machine has none of SageMaker's: give --role" in text


def test_the_image_must_be_in_the_registry(account: Session, plain: Deployment) -> None:
    assert f"image: {REGISTRY}/none:1 is not in the registry" in refused(
        account, replace(plain, image=f"{REGISTRY}/none:1")
    )
    assert f"{REGISTRY}/bloomery:" in refused(account, replace(plain, image=None))
    other = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/bloomery:1"
    assert f"is in eu-west-1, and SageMaker pulls from {REGION} only" in refused(account, replace(plain, image=other))


def test_the_bucket_must_be_in_the_region(account: Session, plain: Deployment, emulator: Emulator) -> None:
    far = "eu-west-1"
    with Account.open("local", endpoint_url=emulator.url, region=far, environment={}) as elsewhere:
        place = {"LocationConstraint": far}
        elsewhere.call("s3", "CreateBucket", Bucket="far-away-bucket", CreateBucketConfiguration=place)
    text = refused(account, replace(plain, model_data="s3://far-away-bucket/model.tar.gz"))
    assert f"bucket far-away-bucket is in eu-west-1, and SageMaker in {REGION} reads only from there" in text


def test_nothing_is_paid_for_without_a_word(
    account: Session, plain: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare(account, replace(plain, instance_count=2))
    question = rf"Make endpoint {plain.name} in {REGION}, account {ACCOUNT}\?.*--yes"
    with pytest.raises(ConfigurationError, match=question):
        command._agreed(account, prepared, None, yes=False)
    assert "2 × ml.m5.xlarge: $0.50 per hour (AWS's price list, on demand)\n" in capsys.readouterr().err
    assert command._agreed(account, prepared, 1.5, yes=True)
    assert "$3.00 per hour (as you say)" in capsys.readouterr().err


def test_what_cannot_be_taken_back_is_told_of(account: Session, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest goes all the same."""
    account.call(
        "sagemaker",
        "CreateModel",
        ModelName=name,
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/Trusting",
        PrimaryContainer={"Image": "echo"},
    )
    send = Session.send

    def failing(self: Session, request: Request) -> Any:
        if request.operation == "DeleteEndpointConfig":
            raise SageMakerError("not now")
        return send(self, request)

    monkeypatch.setattr(Session, "send", failing)
    told: list[Any] = []
    made = [
        Request("sagemaker", "CreateModel", {"ModelName": name}),
        Request("sagemaker", "CreateEndpointConfig", {"EndpointConfigName": name}),
    ]
    take_back(account, made, told.append)
    assert [each.text for each in told] == [
        f"{name} is left behind: not now; remove it with `bloomery delete {name}`",
        f"DeleteModel {name}",
    ]
    assert not made
