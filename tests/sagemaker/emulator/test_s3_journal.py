"""Restarts, the hard way: nothing is asked of the emulator before it dies."""

from __future__ import annotations

import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.support.emulator import Emulator, emulating

from bloomery.sagemaker.emulator.aws.s3_journal import _kept_headers
from bloomery.sagemaker.emulator.aws.s3_request import S3Write, parse


def objects(emulator: Emulator, bucket: str) -> dict[str, bytes]:
    s3 = emulator.client("s3")
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", ())
    return {each["Key"]: s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in listed}


def write_in_every_way(s3: Any) -> None:
    s3.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(
        Bucket="kept", Key="a b/ü.bin", Body=b"one", ContentType="x/y", ContentEncoding="gzip", Metadata={"by": "me"}
    )
    s3.put_object(Bucket="kept", Key="twice", Body=b"old")
    s3.put_object(Bucket="kept", Key="twice", Body=b"new")
    s3.put_object(Bucket="kept", Key="empty", Body=b"")
    s3.copy_object(Bucket="kept", Key="copy", CopySource="kept/twice")
    upload = s3.create_multipart_upload(Bucket="kept", Key="parts")["UploadId"]
    part = s3.upload_part(Bucket="kept", Key="parts", UploadId=upload, PartNumber=1, Body=b"part")
    s3.complete_multipart_upload(
        Bucket="kept",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    unfinished = s3.create_multipart_upload(Bucket="kept", Key="unfinished")["UploadId"]
    s3.upload_part(Bucket="kept", Key="unfinished", UploadId=unfinished, PartNumber=1, Body=b"part")
    for key in ("gone-alone", "gone-together-1", "gone-together-2"):
        s3.put_object(Bucket="kept", Key=key, Body=b"x")
    s3.delete_object(Bucket="kept", Key="gone-alone")
    s3.delete_objects(Bucket="kept", Delete={"Objects": [{"Key": "gone-together-1"}, {"Key": "gone-together-2"}]})
    _post_form(s3)
    s3.create_bucket(Bucket="gone", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.delete_bucket(Bucket="gone")


def _post_form(s3: Any) -> None:
    """As a browser uploads."""
    form = s3.generate_presigned_post("kept", "form")
    boundary = uuid.uuid4().hex
    parts = [f'name="{name}"\r\n\r\n{value}' for name, value in form["fields"].items()]
    parts.append('name="file"; filename="f"\r\n\r\nposted')
    body = "".join(f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    request = urllib.request.Request(
        form["url"],
        f"{body}--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
        method="POST",
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status < 300


def test_objects_are_back_after_a_kill(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with emulating(state, stand_in=True, log=tmp_path / "first.log") as emulator:
        write_in_every_way(emulator.client("s3"))
        before = objects(emulator, "kept")
        emulator.kill()
    assert before == {
        "a b/ü.bin": b"one",
        "twice": b"new",
        "empty": b"",
        "copy": b"new",
        "parts": b"part",
        "form": b"posted",
    }
    with emulating(state, stand_in=True, log=tmp_path / "second.log") as emulator:
        s3 = emulator.client("s3")
        assert objects(emulator, "kept") == before
        head = s3.head_object(Bucket="kept", Key="a b/ü.bin")
        assert (head["ContentType"], head["ContentEncoding"], head["Metadata"]) == ("x/y", "gzip", {"by": "me"})
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["kept"]
        assert s3.get_bucket_location(Bucket="kept")["LocationConstraint"] == "us-west-2"
    data = [path for path in (state / "s3" / "kept").iterdir() if path.suffix != ".json"]
    assert len(data) == len(before)  # what was overwritten or deleted takes no room


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with emulating(state, stand_in=True, log=tmp_path / "first.log") as emulator:
        s3 = emulator.client("s3")
        s3.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        s3.put_object(Bucket="kept", Key="object", Body=b"whole")
        emulator.kill()
    (entry,) = (path for path in (state / "s3" / "kept").glob("*.json") if path.name != "bucket.json")
    entry.with_suffix(".0123").write_bytes(b"half")
    entry.with_name("bucket.json.0123").write_text("{")
    with emulating(state, stand_in=True, log=tmp_path / "second.log") as emulator:
        assert objects(emulator, "kept") == {"object": b"whole"}
    assert len(list((state / "s3" / "kept").iterdir())) == 3


def test_an_entry_without_its_data_is_named(tmp_path: Path) -> None:
    bucket = tmp_path / "state" / "s3" / "kept"
    bucket.mkdir(parents=True)
    (bucket / "bucket.json").write_text('{"name": "kept", "region": ""}')
    (bucket / "0123.json").write_text('{"key": "k", "data": "absent", "headers": {}, "etag": ""}')
    with emulating(tmp_path / "state") as emulator:
        assert emulator.process.wait(30) == 2
    assert "0123.json is not what an emulator wrote" in emulator.log()
    assert "Traceback" not in emulator.log()


def test_headers_of_the_upload_are_not_the_objects() -> None:
    given = {
        "Content-Encoding": "gzip,aws-chunked",
        "Content-Type": "a/b",
        "x-amz-meta-By": "me",
        "ETag": '"0"',
        "x-amz-request-id": "1",
        "Date": "now",
    }
    assert _kept_headers(given) == {"Content-Encoding": "gzip", "Content-Type": "a/b", "x-amz-meta-By": "me"}
    assert _kept_headers({"Content-Encoding": "aws-chunked"}) == {}


class Request:
    """As much of a request as ``parse`` reads."""

    def __init__(self, method: str, path: str, host: str, **more: Any) -> None:
        self.method, self.path, self.host = method, path, host
        self.headers: dict[str, str] = more.get("headers", {})
        self.query: dict[str, str] = more.get("query", {})


def signed(service: str) -> dict[str, str]:
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential=k/20261124/us-east-1/{service}/aws4_request, Signature=0"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("PUT", "/b/k/l", "127.0.0.1:80", headers=signed("s3")), S3Write("PUT", "b", "k/l")),
        (Request("PUT", "/b", "127.0.0.1:80", headers=signed("s3")), S3Write("PUT", "b", "")),
        (Request("PUT", "/k/l", "b.localhost:80", headers=signed("s3")), S3Write("PUT", "b", "k/l")),
        (Request("PUT", "/k", "b.c.s3.us-west-2.amazonaws.com", headers=signed("s3")), S3Write("PUT", "b.c", "k")),
        (Request("POST", "/b", "localhost:80"), S3Write("POST", "b", "")),
        (Request("POST", "/b", "localhost:80", query={"delete": ""}), S3Write("POST", "b", "")),
        (Request("PUT", "/b//k", "localhost:80", query={"x-id": "PutObject"}), S3Write("PUT", "b", "/k")),
        (Request("DELETE", "/b/k", "localhost:80", query={"versionId": "1"}), S3Write("DELETE", "b", "k")),
        (
            Request("PUT", "/b/k", "h", query={"AWSAccessKeyId": "k", "Signature": "s", "Expires": "1"}),
            S3Write("PUT", "b", "k"),
        ),
        (Request("POST", "/b/k", "localhost:80", query={"uploadId": "1"}), S3Write("POST", "b", "k")),
        (Request("PUT", "/b/k", "localhost:80", query={"uploadId": "1", "partNumber": "2"}), None),
        (Request("DELETE", "/b/k", "localhost:80", query={"uploadId": "1"}), None),
        (Request("POST", "/b/k", "localhost:80", query={"uploads": ""}), None),
        (Request("PUT", "/b/k", "localhost:80", query={"tagging": ""}), None),
        (Request("PUT", "/b", "localhost:80", query={"versioning": ""}), None),
        (
            Request("PUT", "/b/k", "h", query={"X-Amz-Credential": "k/20261124/us-east-1/s3/aws4_request"}),
            S3Write("PUT", "b", "k"),
        ),
        (Request("POST", "/", "127.0.0.1:80", headers=signed("iam")), None),
        (Request("POST", "/b", "127.0.0.1:80", headers=signed("logs")), None),
        (Request("POST", "/", "127.0.0.1:80", headers={"X-Amz-Target": "Logs_20140328.PutLogEvents"}), None),
        (Request("POST", "/", "127.0.0.1:80"), None),
    ],
)
def test_requests_that_may_have_changed_an_object(request_: Any, expected: S3Write | None) -> None:
    assert parse(request_) == expected
