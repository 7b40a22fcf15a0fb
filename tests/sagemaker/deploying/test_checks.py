"""What is wrong with a deployment, said before anything is made: without an account, and of one."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.sagemaker.deploying.conftest import BUCKET, TYPE, left, tar_of
from tests.support.emulator import REGION, ROLE

from bloomery.errors import DeploymentRefusedError
from bloomery.sagemaker.deploying import AsyncOutput, Component, Deployment
from bloomery.sagemaker.deploying.account_checks import trust_findings
from bloomery.sagemaker.deploying.checks import check
from bloomery.sagemaker.deploying.ordering import prepare
from bloomery.sagemaker.deploying.requests import create_config, creation
from bloomery.sagemaker.deploying.stored_data import archive_findings
from bloomery.sagemaker.session import Session

GOOD = Deployment("demo", (TYPE,), "s3://bucket/model.tar.gz", image="image", role=ROLE)


def errors(wanted: Deployment) -> list[str]:
    return [str(each) for each in check(wanted) if each.level == "error"]


def test_nothing_is_said_of_what_is_right() -> None:
    full = replace(
        GOOD,
        name="a-" * 30 + "abc",
        instance_types=("ml.g5.12xlarge", "ml.p4d.24xlarge"),
        model_data="s3://bucket/prefix/",
        environment={"OPTION_DTYPE": "fp16"},
        tensor_parallel=4,
        download_timeout=60,
        startup_timeout=3600,
        async_output=AsyncOutput("s3://bucket/out/", "s3://bucket/failed/", 4),
        routing="LEAST_OUTSTANDING_REQUESTS",
        ami_version="al2-ami-sagemaker-inference-gpu-3-1",
        subnets=("subnet-1",),
        security_groups=("sg-1",),
        kms_key="1234abcd-12ab-34cd-56ef-1234567890ab",
        tags={"team": "x"},
        ttl=timedelta(hours=1),
    )
    assert check(GOOD) == []
    assert check(full) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "my_endpoint"}, "name: 'my_endpoint' is not what SageMaker takes: letters, digits and hyphens"),
        ({"name": "n" * 64}, "has 64 characters; SageMaker takes at most 63"),
        ({"instance_types": ("ml.g5.2xlarg",)}, "none that SageMaker knows: did you mean ml.g5.2xlarge"),
        ({"instance_types": ("p4d.24xlarge",)}, "did you mean ml.p4d.24xlarge"),
        ({"instance_types": ()}, "instance type: none is given"),
        ({"startup_timeout": 30}, "startup timeout: 30 is too little: at least 60"),
        ({"download_timeout": 7200}, "download timeout: 7200 is too much: at most 3600"),
        ({"startup_timeout": "600"}, "startup timeout: '600' is no number"),
        ({"instance_count": 0}, "instance count: 0 is too little"),
        ({"volume": 1024}, "volume: 1024 is too much: at most 512"),
        ({"volume": 100, "instance_types": ("ml.g5.xlarge",)}, "ml.g5.xlarge has disks of its own"),
        ({"role": "arn:aws:iam::12:role/x"}, "role: 'arn:aws:iam::12:role/x' is not what"),
        ({"image": "my image"}, "image: 'my image' is not what SageMaker takes: no blanks"),
        ({"model_data": "s3://bucket/model.zip"}, "is no .tar.gz, and SageMaker takes no other archive"),
        ({"model_data": "s3://bucket/prefix"}, "the prefix of an uncompressed model ends with a slash"),
        ({"model_data": "https://host/model.tar.gz"}, "is neither in S3"),
        ({"model_data": None}, "neither an archive nor a checkpoint is given"),
        ({"checkpoint": "/data/bloom"}, "is a directory of this machine.*bloomery upload"),
        ({"checkpoint": "s3:/bucket/bloom"}, "write s3://bucket/prefix/"),
        ({"checkpoint": "a/b", "environment": {"OPTION_MODEL_ID": "c/d"}}, "give one of the two"),
        ({"environment": {"DEGREE": 8}}, "DEGREE is 8, of type int: write '8'"),
        ({"environment": {"A-B": "c"}}, "'A-B' is no name of a variable"),
        ({"environment": {"A": "x" * 1025}}, "A has 1025 characters"),
        ({"environment": {f"V{i}": "x" * 1000 for i in range(40)}}, "bytes together; SageMaker takes 32768"),
        ({"environment": {f"V{i}": "x" for i in range(101)}}, "101 variables; SageMaker takes 100"),
        ({"tensor_parallel": 8, "instance_types": ("ml.g5.12xlarge",)}, "8 ranks do not fit: ml.g5.12xlarge has 4"),
        ({"tensor_parallel": 0}, "'0' is no number of ranks"),
        ({"routing": "ROUND_ROBIN"}, "routing: 'ROUND_ROBIN' is none that SageMaker knows: it is one of LEAST"),
        ({"subnets": ("subnet-1",)}, "both subnets and security groups"),
        ({"network_isolation": True, "checkpoint": "bigscience/bloom"}, "could not reach bigscience/bloom"),
        ({"async_output": AsyncOutput("bucket/out")}, "asynchronous output: 'bucket/out' is not what"),
        ({"component": Component(accelerators=2)}, "a copy needs 2 accelerators, and ml.m5.xlarge has 0"),
        ({"component": Component(memory=10**6)}, "a copy needs 1000000 MiB, and ml.m5.xlarge has 16384"),
        ({"component": Component(copies=0, memory=1024)}, "0 copies: it begins with 1 or more"),
        ({"component": Component(max_instances=1), "instance_count": 2}, "at most 1 instances, but 2 to begin with"),
        ({"component": Component(), "async_output": AsyncOutput("s3://b/o/")}, "cannot be asynchronous"),
        ({"tags": {f"k{i}": "v" for i in range(60)}}, "tags: 61 of them; SageMaker takes at most 50"),
    ],
)
def test_what_is_known_to_be_wrong(changes: dict[str, Any], words: str) -> None:
    found = errors(replace(GOOD, **changes))
    assert any(re.search(words, each) for each in found), found
    assert len(found) == 1, "one mistake is told of once"


def test_everything_is_said_at_once() -> None:
    found = errors(replace(GOOD, name="a_b", startup_timeout=1, image="a b"))
    assert sorted(each.partition(":")[0] for each in found) == ["image", "name", "startup timeout"]


def test_the_requests_are_what_the_walk_through_sends() -> None:
    wanted = replace(
        GOOD,
        model_data="s3://bucket/prefix/",
        tensor_parallel=8,
        volume=256,
        instance_types=("ml.m5.xlarge", "ml.c5.xlarge"),
    )
    model, config, endpoint = creation(wanted, datetime.now(UTC))
    assert model.parameters["PrimaryContainer"] == {
        "Image": "image",
        "ModelDataSource": {
            "S3DataSource": {"S3Uri": "s3://bucket/prefix/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        },
        "Environment": {"TENSOR_PARALLEL_DEGREE": "8"},
    }
    (variant,) = config.parameters["ProductionVariants"]
    assert variant == {
        "VariantName": "AllTraffic",
        "ModelName": "demo",
        "InstanceType": "ml.m5.xlarge",
        "InitialInstanceCount": 1,
        "ModelDataDownloadTimeoutInSeconds": 2400,
        "ContainerStartupHealthCheckTimeoutInSeconds": 2400,
        "VolumeSizeInGB": 256,
    }
    assert endpoint.parameters["EndpointConfigName"] == "demo"
    other = create_config(wanted, "ml.c5.xlarge", datetime.now(UTC))
    assert other.parameters["ProductionVariants"][0]["InstanceType"] == "ml.c5.xlarge"


@pytest.mark.parametrize(
    ("component", "instance_type", "ranks", "needed"),
    [
        (Component(), "ml.g5.12xlarge", None, (4, 196608 * 3 // 4)),  # all of the machine
        (Component(), "ml.g5.12xlarge", 2, (2, 196608 * 3 // 8)),  # half of it
        (Component(accelerators=1, memory=2048), "ml.g5.12xlarge", 2, (1, 2048)),
        (Component(copies=2), "ml.m5.xlarge", 2, (None, 16384 * 3 // 8)),
    ],
)
def test_what_a_copy_needs(component: Component, instance_type: str, ranks: int | None, needed: Any) -> None:
    found = component.requirements(instance_type, ranks)
    assert (found.get("NumberOfAcceleratorDevicesRequired"), found["MinMemoryRequiredInMb"]) == needed
    assert not list(component.lacking(instance_type, ranks))


class TestArchives:
    """By the first bytes."""

    def test_either_level_will_do(self) -> None:
        for path in ("serving.properties", "./model.py", "code/serving.properties"):
            assert list(archive_findings(tar_of({path: b"x"}), "uri", whole=True)) == []

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"PK\x03\x04 and so on", "is no gzip (it is a zip)"),
            (tar_of({"model.py": b""}, zipped=False), "is no gzip (it is a tar without gzip)"),
            (tar_of({"a/b/model.py": b"", "weights.bin": b""}), "neither serving.properties nor model.py"),
            (gzip.compress(b"no tar"), "is no gzip of a tar"),
        ],
        ids=["zip", "tar", "too deep", "no tar"],
    )
    def test_what_sagemaker_fails_at(self, body: bytes, words: str) -> None:
        (found,) = archive_findings(body, "uri", whole=True)
        assert words in found.message

    def test_of_a_large_one_only_the_start_is_judged(self) -> None:
        body = tar_of({"first": bytes(100_000), "model.py": b""})
        assert list(archive_findings(body[:90], "uri", whole=False)) == []


class TestTrust:
    @pytest.mark.parametrize("service", ["sagemaker.amazonaws.com", ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]])
    def test_trusted(self, service: Any) -> None:
        statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        assert list(trust_findings("r", {"Statement": [statement]})) == []

    @pytest.mark.parametrize("principal", [{"Service": "ec2.amazonaws.com"}, "*", {"AWS": "123456789012"}])
    def test_not_trusted(self, principal: Any) -> None:
        (found,) = trust_findings("r", {"Statement": {"Effect": "Allow", "Principal": principal}})
        assert "does not trust sagemaker.amazonaws.com: `bloomery policies trust`" in found.message


class TestAccount:
    """On the emulator; nothing may be made."""

    def refused(self, session: Session, wanted: Deployment) -> str:
        with pytest.raises(DeploymentRefusedError) as caught:
            prepare(session, wanted)
        assert left(session, wanted.name) == []
        return str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"model_data": f"s3://{BUCKET}/none/model.tar.gz"}, "there is no s3://.*bloomery package DIR --upload"),
            ({"model_data": "s3://no-such-bucket-of-ours/model.tar.gz"}, "there is no bucket no-such-bucket-of-ours"),
            ({"model_data": f"s3://{BUCKET}/empty/"}, "there is nothing at s3://"),
            ({"checkpoint": f"s3://{BUCKET}/no-checkpoint/"}, "checkpoint: there is nothing at"),
            (
                {"instance_types": ("ml.p4d.24xlarge",)},
                "is 0 in us-west-2, and 1 are asked for.*--quota-code",
            ),
            ({"model_data": "/no/such/directory"}, "model data: /no/such/directory cannot be packaged"),
            ({"role": "no/such role"}, "is neither a role's name nor its ARN"),
            ({"role": "Missing"}, "role: account 123456789012 has no role 'Missing'"),
        ],
    )
    def test_what_is_not_there(self, session: Session, wanted: Deployment, changes: dict[str, Any], words: str) -> None:
        text = self.refused(session, replace(wanted, **changes))
        assert re.search(words, text), text
        assert text.startswith(f"endpoint {wanted.name} cannot be deployed, and nothing was made:")

    def test_an_unfit_directory_is_told_of_once(self, session: Session, wanted: Deployment, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no model")
        text = self.refused(session, replace(wanted, model_data=str(tmp_path)))
        assert "there is no model.py" in text
        assert "not what SageMaker takes" not in text
        assert "is neither in S3" not in text

    def test_a_checkpoint_is_a_directory_with_a_config(
        self, session: Session, wanted: Deployment, put: Callable[[str, bytes], str]
    ) -> None:
        put("checkpoint/bloom/config.json", b"{}")
        assert "name the directory that holds it" in self.refused(
            session, replace(wanted, checkpoint=f"s3://{BUCKET}/checkpoint/")
        )
        prepare(session, replace(wanted, checkpoint=f"s3://{BUCKET}/checkpoint/bloom"))

    def test_an_archive_that_is_none(
        self, session: Session, wanted: Deployment, put: Callable[[str, bytes], str]
    ) -> None:
        uri = put("bad/model.tar.gz", tar_of({"weights.bin": b"x"}))
        assert "has neither serving.properties nor model.py" in self.refused(session, replace(wanted, model_data=uri))

    def test_what_an_earlier_deployment_left_is_used_if_it_is_the_same(
        self, session: Session, wanted: Deployment
    ) -> None:
        model, config, _ = creation(wanted, datetime.now(UTC))
        session.send(model)
        session.send(config)
        try:
            prepared = prepare(session, wanted)
            assert prepared.present == {"CreateModel", "CreateEndpointConfig"}
            assert [each.operation for each in prepared.requests()] == ["CreateEndpoint"]
            assert "is the same, and is used again" in "\n".join(map(str, prepared.notes))
            changed = replace(wanted, environment={"A": "b"}, startup_timeout=600)
            with pytest.raises(DeploymentRefusedError) as caught:
                prepare(session, changed)
            text = str(caught.value)
            assert f"another model {wanted.name}, and it would be used" in text
            assert "ContainerStartupHealthCheckTimeoutInSeconds is 2400, not 600" in text
            assert f"bloomery delete {wanted.name}" in text
        finally:
            session.call("sagemaker", "DeleteEndpointConfig", EndpointConfigName=wanted.name)
            session.call("sagemaker", "DeleteModel", ModelName=wanted.name)

    def test_a_role_is_found_by_its_name(self, session: Session, wanted: Deployment) -> None:
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        session.call("iam", "CreateRole", RoleName="Here", Path="/service-role/", AssumeRolePolicyDocument=trust)
        resolved = prepare(session, replace(wanted, role="Here")).wanted
        assert resolved.role == "arn:aws:iam::123456789012:role/service-role/Here"

    def test_a_directory_is_named_before_it_is_uploaded(
        self, session: Session, wanted: Deployment, tmp_path: Path
    ) -> None:
        (tmp_path / "model.py").write_text("def handle(inputs):\n    return None\n")
        upload, *rest = prepare(session, replace(wanted, model_data=str(tmp_path))).requests()
        assert upload.operation == "PutObject"
        assert upload.parameters["Bucket"] == f"sagemaker-{REGION}-123456789012"
        container = rest[0].parameters["PrimaryContainer"]
        assert container["ModelDataUrl"] == "s3://{Bucket}/{Key}".format(**upload.parameters)
