"""What moto answers, through the emulator: as it came, and as it went."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from tests.support.emulator import Emulator, emulating

from bloomery.sagemaker import Session
from bloomery.sagemaker.deploying.account_checks import trust_findings

LARGE = 24 * 1024**2


@pytest.fixture
def s3(control: Emulator) -> Any:
    return control.client("s3")


@pytest.fixture
def bucket(s3: Any, name: str) -> str:
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    return name


def test_head_says_the_length_and_sends_nothing(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="object", Body=b"x" * 1234)
    assert s3.head_object(Bucket=bucket, Key="object")["ContentLength"] == 1234
    where = urlsplit(s3.generate_presigned_url("head_object", Params={"Bucket": bucket, "Key": "object"}))
    connection = http.client.HTTPConnection(where.netloc, timeout=30)
    try:
        for _ in range(2):  # the connection is still good after the first
            connection.request("HEAD", f"{where.path}?{where.query}")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, "1234", b"")
    finally:
        connection.close()


def test_a_compressed_object_stays_compressed(s3: Any, bucket: str) -> None:
    packed = gzip.compress(b"text" * 1000)
    s3.put_object(Bucket=bucket, Key="object", Body=packed, ContentEncoding="gzip", ContentType="text/plain")
    got = s3.get_object(Bucket=bucket, Key="object")
    assert got["Body"].read() == packed
    assert (got["ContentEncoding"], got["ContentType"]) == ("gzip", "text/plain")


@pytest.mark.parametrize("key", ["a b+c%20d", "ünïcode/ключ", "a//b", "q?x=1&y", "endpoints/e/invocations"])
def test_any_key_arrives_as_it_was_sent(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b"data")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"data"


def test_large_objects_pass_whole_in_parts_and_ranges(s3: Any, bucket: str) -> None:
    half = b"0123456789abcdef" * (LARGE // 32)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="large")["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**_part(bucket, upload, number), Body=half)["ETag"]}
        for number in (1, 2)
    ]
    s3.complete_multipart_upload(Bucket=bucket, Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
    got = s3.get_object(Bucket=bucket, Key="large")
    assert got["ContentLength"] == LARGE
    assert got["Body"].read() == half * 2
    assert s3.get_object(Bucket=bucket, Key="large", Range="bytes=100-115")["Body"].read() == (half * 2)[100:116]


def _part(bucket: str, upload: str, number: int) -> dict[str, Any]:
    return {"Bucket": bucket, "Key": "large", "UploadId": upload, "PartNumber": number}


def test_who_comes_with_the_emulators_key_is_the_execution_role(control: Emulator) -> None:
    """As the SDK's ``get_execution_role()`` finds it, with which most published notebooks begin."""
    with Session.open("local", endpoint_url=control.url, region="us-west-2", environment={}) as session:
        identity = session.call("sts", "GetCallerIdentity")
        assert identity["Arn"] == "arn:aws:sts::123456789012:assumed-role/bloomery-local/SageMaker"
        role = session.call("iam", "GetRole", RoleName="bloomery-local")["Role"]
        assert role["Arn"] == "arn:aws:iam::123456789012:role/bloomery-local"
        assert list(trust_findings("bloomery-local", role["AssumeRolePolicyDocument"])) == []


def test_a_body_without_a_length_passes(s3: Any, control: Emulator, bucket: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"one", b"two", b"three")

    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "object"})
    request = urllib.request.Request(url, pieces(), {"Content-Type": ""}, method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert s3.get_object(Bucket=bucket, Key="object")["Body"].read() == b"onetwothree"


@pytest.mark.parametrize("encoding", ["aws-chunked", "gzip,aws-chunked"])
def test_a_body_in_chunks_with_a_trailer_is_stored_without_them(s3: Any, bucket: str, encoding: str) -> None:
    """As the SDKs for Java, Go and JavaScript upload streams."""
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "object"})
    headers = {
        "Content-Type": "",
        "Content-Encoding": encoding,
        "X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "X-Amz-Decoded-Content-Length": "11",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="PUT")) as answer:
        assert answer.status == 200
    got = s3.get_object(Bucket=bucket, Key="object")
    assert got["Body"].read() == b"hello world"
    assert got["ContentLength"] == 11


def test_what_cannot_be_kept_is_not_acknowledged(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", stand_in=True) as emulator:
        s3 = emulator.client("s3")
        s3.create_bucket(Bucket="full-disk", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        (journal,) = (tmp_path / "state" / "s3").iterdir()
        shutil.rmtree(journal)
        journal.write_text("no directory: whatever is written below it fails, as on a full disk")
        with pytest.raises(ClientError, match="507"):
            s3.put_object(Bucket="full-disk", Key="object", Body=b"data")


def test_errors_of_s3_are_s3s(s3: Any, bucket: str) -> None:
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="absent")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=bucket, Key="absent")


def test_identity_and_roles(control: Emulator, name: str) -> None:
    assert control.client("sts").get_caller_identity()["Account"] == "123456789012"
    iam = control.client("iam")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
    created = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/AmazonSageMakerFullAccess")
    assert created["Role"]["Arn"] == f"arn:aws:iam::123456789012:role/{name}"
    assert iam.get_role(RoleName=name)["Role"]["RoleName"] == name


def test_logs_and_metrics(control: Emulator, name: str) -> None:
    logs, cloudwatch = control.client("logs"), control.client("cloudwatch")
    logs.create_log_group(logGroupName=name)
    assert [group["logGroupName"] for group in logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]] == [name]
    cloudwatch.put_metric_data(Namespace=name, MetricData=[{"MetricName": "Invocations", "Value": 1}])
    assert [metric["MetricName"] for metric in cloudwatch.list_metrics(Namespace=name)["Metrics"]] == ["Invocations"]
