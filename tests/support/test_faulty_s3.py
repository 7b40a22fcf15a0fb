"""The fault-injecting S3 server, asked by an independent client: a test that relies on it must be able to."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscrt import checksums
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, IncompleteReadError, ReadTimeoutError
from tests.support.faulty_s3 import Fault, FaultyS3, FaultyS3Process, Record
from tests.support.faulty_s3.environment import ACCESS_KEY, SECRET_KEY

DATA = os.urandom(3 << 20)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "models" / "opt").mkdir(parents=True)
    (tmp_path / "models" / "opt" / "model.safetensors").write_bytes(DATA)
    return tmp_path


@pytest.fixture
def server(directory: Path) -> Iterator[FaultyS3]:
    with FaultyS3(directory) as server:
        yield server


@pytest.fixture
def client(server: FaultyS3) -> Iterator[Any]:
    client = connect(server.url)
    yield client
    client.close()


def connect(url: str, region: str = "us-east-1", **credentials: str) -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=1, proxies={})
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY} | credentials
    return boto3.session.Session().client("s3", endpoint_url=url, region_name=region, config=config, **keys)


def read(client: Any, **arguments: Any) -> bytes:
    return bytes(client.get_object(Bucket="models", Key="opt/model.safetensors", **arguments)["Body"].read())


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def crc64nvme(data: bytes) -> str:
    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()


def test_an_object_is_read_whole_and_in_ranges(client: Any) -> None:
    assert read(client) == DATA
    assert read(client, Range="bytes=10-99") == DATA[10:100]
    assert read(client, Range="bytes=3145000-") == DATA[3145000:]
    assert read(client, Range="bytes=-7") == DATA[-7:]
    with pytest.raises(ClientError) as error:
        read(client, Range=f"bytes={len(DATA)}-")
    assert code_of(error) == "InvalidRange"


def test_an_etag_holds_for_one_version(client: Any, directory: Path) -> None:
    etag = client.head_object(Bucket="models", Key="opt/model.safetensors")["ETag"]
    assert read(client, IfMatch=etag) == DATA
    (directory / "models" / "opt" / "model.safetensors").write_bytes(DATA[::-1])
    with pytest.raises(ClientError) as error:
        read(client, IfMatch=etag)
    assert code_of(error) == "PreconditionFailed"


def test_the_checksum_is_of_the_full_object(client: Any, directory: Path) -> None:
    head = client.head_object(Bucket="models", Key="opt/model.safetensors", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (crc64nvme(DATA), "FULL_OBJECT")
    attributes = client.get_object_attributes(
        Bucket="models", Key="opt/model.safetensors", ObjectAttributes=["Checksum", "ObjectSize"]
    )
    assert attributes["Checksum"]["ChecksumCRC64NVME"] == crc64nvme(DATA)
    assert attributes["ObjectSize"] == len(DATA)
    with FaultyS3(directory, with_checksums=False) as other:
        asker = connect(other.url)
        head = asker.head_object(Bucket="models", Key="opt/model.safetensors", ChecksumMode="ENABLED")
        assert "ChecksumCRC64NVME" not in head
        asker.close()


def test_a_listing_has_pages_in_order(client: Any) -> None:
    client.create_bucket(Bucket="many")
    keys = sorted([f"a/{number:02}" for number in range(23)] + ["a.txt", "b/../c", "b//d", "é %2E"], key=str.encode)
    for key in keys:
        client.put_object(Bucket="many", Key=key, Body=key.encode())
    pages = client.get_paginator("list_objects_v2")
    listed = [
        item["Key"]
        for page in pages.paginate(Bucket="many", PaginationConfig={"PageSize": 5})
        for item in page["Contents"]
    ]
    assert listed == keys
    assert [client.get_object(Bucket="many", Key=key)["Body"].read().decode() for key in keys] == keys
    page = client.list_objects_v2(Bucket="many", Delimiter="/", MaxKeys=2)
    assert [found["Prefix"] for found in page["CommonPrefixes"]] == ["a/"]
    page = client.list_objects_v2(Bucket="many", Delimiter="/", ContinuationToken=page["NextContinuationToken"])
    assert [found["Prefix"] for found in page["CommonPrefixes"]] == ["b/"]
    client.delete_object(Bucket="many", Key="a.txt")
    assert client.list_objects_v2(Bucket="many", Prefix="a.")["KeyCount"] == 0


def test_nothing_is_where_nothing_is(client: Any) -> None:
    for call, arguments, code in (
        (client.list_objects_v2, {"Bucket": "nobody"}, "NoSuchBucket"),
        (client.get_object, {"Bucket": "models", "Key": "opt"}, "NoSuchKey"),
        (client.head_object, {"Bucket": "models", "Key": "x"}, "404"),
        (client.list_parts, {"Bucket": "models", "Key": "x", "UploadId": "x"}, "NoSuchUpload"),
    ):
        with pytest.raises(ClientError) as error:
            call(**arguments)
        assert code_of(error) == code


def test_a_multipart_upload_is_checked_part_by_part_and_as_a_whole(client: Any, directory: Path) -> None:
    where = {"Bucket": "models", "Key": "up/loaded"}
    parts = [DATA[: 2 << 20], DATA[2 << 20 :]]
    upload = client.create_multipart_upload(**where, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    with pytest.raises(ClientError) as error:
        client.upload_part(
            **where, UploadId=upload["UploadId"], PartNumber=1, Body=parts[0], ChecksumCRC64NVME=crc64nvme(b"other")
        )
    assert code_of(error) == "BadDigest"
    done = []
    for number, part in enumerate(parts, 1):
        answer = client.upload_part(
            **where, UploadId=upload["UploadId"], PartNumber=number, Body=part, ChecksumAlgorithm="CRC64NVME"
        )
        assert answer["ChecksumCRC64NVME"] == crc64nvme(part)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    assert [found["UploadId"] for found in client.list_multipart_uploads(Bucket="models")["Uploads"]] == [
        upload["UploadId"]
    ]
    listed = client.list_parts(**where, UploadId=upload["UploadId"])["Parts"]
    assert [(part["Size"], part["ChecksumCRC64NVME"]) for part in listed] == [(len(p), crc64nvme(p)) for p in parts]
    arguments = {**where, "UploadId": upload["UploadId"], "MultipartUpload": {"Parts": done}}
    with pytest.raises(ClientError) as error:
        client.complete_multipart_upload(**arguments, ChecksumCRC64NVME=crc64nvme(b"other"))
    assert code_of(error) == "BadDigest"
    answer = client.complete_multipart_upload(**arguments, ChecksumCRC64NVME=crc64nvme(DATA))
    assert (answer["ChecksumCRC64NVME"], answer["ChecksumType"]) == (crc64nvme(DATA), "FULL_OBJECT")
    assert answer["ETag"].endswith('-2"')
    assert client.get_object(**where)["Body"].read() == DATA
    assert not list((directory / ".uploads").iterdir())


def test_an_upload_that_is_aborted_leaves_nothing(client: Any, directory: Path) -> None:
    upload = client.create_multipart_upload(Bucket="models", Key="x")["UploadId"]
    client.upload_part(Bucket="models", Key="x", UploadId=upload, PartNumber=1, Body=b"part")
    client.abort_multipart_upload(Bucket="models", Key="x", UploadId=upload)
    assert not list((directory / ".uploads").iterdir())
    assert client.list_objects_v2(Bucket="models", Prefix="x")["KeyCount"] == 0


def test_the_checksum_of_an_object_is_the_one_it_came_with(client: Any) -> None:
    client.put_object(Bucket="models", Key="x", Body=b"x", ChecksumAlgorithm="SHA256")
    head = client.head_object(Bucket="models", Key="x", ChecksumMode="ENABLED")
    assert "ChecksumSHA256" in head
    assert "ChecksumCRC64NVME" not in head


def test_who_does_not_hold_the_secret_is_refused(server: FaultyS3) -> None:
    for keys, code in (
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_access_key_id": "nobody"}, "InvalidAccessKeyId"),
    ):
        client = connect(server.url, **keys)
        with pytest.raises(ClientError) as error:
            read(client)
        assert code_of(error) == code
        client.close()


def test_odd_names_are_signed_as_they_are_sent(client: Any) -> None:
    key = "a b/+&=?#~é'(1)*.bin"
    client.put_object(Bucket="models", Key=key, Body=b"odd")
    assert client.get_object(Bucket="models", Key=key)["Body"].read() == b"odd"
    assert [item["Key"] for item in client.list_objects_v2(Bucket="models", Prefix="a b/+")["Contents"]] == [key]


def test_expired_credentials_stay_expired_and_new_ones_work(server: FaultyS3) -> None:
    server.inject(Fault("expire", skip=2, times=1))
    old = connect(server.url, aws_session_token="old")
    assert read(old) == read(old) == DATA
    for call in (read, read, lambda client: client.list_objects_v2(Bucket="models")):
        with pytest.raises(ClientError) as error:
            call(old)
        assert code_of(error) == "ExpiredToken"
    new = connect(server.url, aws_session_token="new")
    assert read(new) == DATA
    old.close()
    new.close()


def test_errors_come_as_often_as_they_should(server: FaultyS3, client: Any) -> None:
    server.inject(Fault("error", every=3, retry_after=0.5))
    seen: list[Any] = []
    for _ in range(6):
        try:
            read(client)
            seen.append(200)
        except ClientError as error:
            answer = error.response["ResponseMetadata"]
            seen.append((answer["HTTPStatusCode"], answer["HTTPHeaders"]["retry-after"]))
    assert seen == [200, 200, (503, "0.5")] * 2
    server.inject(Fault("error", fraction=0.5))
    server.forget()
    for _ in range(60):
        try:
            read(client, Range="bytes=0-1")
        except ClientError:
            pass
    assert 15 < sum(record.status == 503 for record in server.requests()) < 45


def test_access_is_denied_to_some_keys(server: FaultyS3, client: Any) -> None:
    server.inject(Fault.denied(key="opt/*"))
    with pytest.raises(ClientError) as error:
        read(client)
    assert code_of(error) == "AccessDenied"
    assert client.list_objects_v2(Bucket="models")["KeyCount"] == 1


@pytest.mark.parametrize("status", [301, 400])
def test_the_wrong_region_is_refused_with_the_right_one(server: FaultyS3, status: int) -> None:
    server.inject(Fault("wrong_region", operation="*", region="eu-west-1", status=status))
    right = connect(server.url, "eu-west-1")
    assert read(right) == DATA
    right.close()
    server.forget()
    wrong = connect(server.url)
    assert read(wrong) == DATA  # botocore reads the right region from the answer, and signs for that
    wrong.close()
    assert [record.status for record in server.requests() if record.operation == "GetObject"] == [status, 200]


def first_fault(server: FaultyS3) -> Record:
    """What has stalled is in the log once the server has seen that the client hung up."""
    end = time.monotonic() + 10
    while not (found := [record for record in server.requests() if record.fault]):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found[0]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("reset", after_bytes=1 << 20), Exception),
        (Fault("truncate", after_bytes=1 << 20), (IncompleteReadError, Exception)),
        (Fault("stall", after_bytes=1 << 20), Exception),
        (Fault("reset"), ConnectionClosedError),
        (Fault("stall"), ReadTimeoutError),
    ],
    ids=["reset", "truncated", "stalled", "reset before the head", "stalled before the head"],
)
def test_a_body_ends_badly(server: FaultyS3, client: Any, fault: Fault, expected: Any) -> None:
    server.inject(fault)
    with pytest.raises(expected):
        read(client)
    server.heal()
    assert read(client) == DATA
    record = first_fault(server)
    assert record.fault == fault.kind
    assert record.sent == (fault.after_bytes or 0)


def test_a_byte_is_flipped_once_or_always(server: FaultyS3, client: Any) -> None:
    server.inject(Fault("flip", offset=1_000_000, times=1))
    assert read(client, Range="bytes=0-9") == DATA[:10]
    damaged = read(client, Range="bytes=500000-1500000")
    assert [index for index, byte in enumerate(damaged) if byte != DATA[500_000 + index]] == [500_000]
    assert read(client, Range="bytes=500000-1500000") == DATA[500_000:1_500_001]
    server.inject(Fault("flip", after_bytes=5))
    for _ in range(2):
        damaged = read(client, Range="bytes=100-199")
        assert [index for index, byte in enumerate(damaged) if byte != DATA[100 + index]] == [5]


def test_a_replaced_object_is_old_to_who_reads_it_and_new_to_who_asks(server: FaultyS3, client: Any) -> None:
    etag = client.head_object(Bucket="models", Key="opt/model.safetensors")["ETag"]
    server.inject(Fault("replace", times=1))
    assert read(client, IfMatch=etag) == DATA
    with pytest.raises(ClientError) as error:
        read(client, IfMatch=etag)
    assert code_of(error) == "PreconditionFailed"
    new = read(client)
    assert len(new) == len(DATA)
    assert new != DATA


def test_an_answer_is_late_and_a_body_is_slow(server: FaultyS3, client: Any) -> None:
    server.inject(Fault("latency", seconds=0.2), Fault("rate", rate=1e6))
    started = time.monotonic()
    assert read(client, Range="bytes=0-299999") == DATA[:300_000]
    assert time.monotonic() - started > 0.45


def test_the_log_says_what_was_read(server: FaultyS3, client: Any) -> None:
    read(client, Range="bytes=10-99")
    client.list_objects_v2(Bucket="models")
    first, second = server.requests()
    assert (first.operation, first.key, first.status) == ("GetObject", "opt/model.safetensors", 206)
    assert (first.start, first.length, first.sent) == (10, 90, 90)
    assert (second.operation, second.start) == ("ListObjectsV2", None)


def test_as_a_process_of_its_own_it_is_governed_the_same_way(directory: Path) -> None:
    with FaultyS3Process(directory) as server:
        client = connect(server.url)
        server.inject(Fault("error", times=1))
        with pytest.raises(ClientError):
            read(client)
        assert read(client) == DATA
        assert [(record.status, record.sent > 0) for record in server.requests()] == [(503, True), (200, True)]
        server.forget()
        assert server.requests() == []
        client.close()
