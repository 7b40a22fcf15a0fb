"""Deleting from S3: what lies below a prefix, and nothing beside it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sagemaker.operating.conftest import endpoint
from tests.support.emulator import REGION

from bloomery.errors import RemovalError
from bloomery.sagemaker.operating.prefix import below, check_unused, delete, uploaded_archives
from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.session import Session


@pytest.fixture
def bucket(session: Session, name: str) -> str:
    session.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


def put(session: Session, bucket: str, *keys: str) -> None:
    for key in keys:
        session.client("s3").put_object(Bucket=bucket, Key=key, Body=b"x" * 10)


def keys(session: Session, bucket: str) -> list[str]:
    found = session.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())
    return [each["Key"] for each in found]


def test_the_folder_goes_and_its_namesakes_stay(session: Session, bucket: str) -> None:
    put(session, bucket, "bloom/a", "bloom/b/c", "bloom-7b/a", "bloomer")
    s3 = session.client("s3")
    for key in ("bloom/unfinished", "bloom-7b/unfinished"):
        s3.create_multipart_upload(Bucket=bucket, Key=key)
    found = below(session, f"s3://{bucket}/bloom")
    assert (found.uri, found.keys, found.size) == (f"s3://{bucket}/bloom/", ("bloom/a", "bloom/b/c"), 20)
    assert [key for key, _ in found.unfinished] == ["bloom/unfinished"]
    assert not found.versioned
    assert keys(session, bucket) == ["bloom-7b/a", "bloom/a", "bloom/b/c", "bloomer"]
    assert delete(session, found) == 2
    assert keys(session, bucket) == ["bloom-7b/a", "bloomer"]
    left = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [each["Key"] for each in left] == ["bloom-7b/unfinished"]
    assert delete(session, found) == 2  # once more: it is gone, and no error


def test_one_object_where_there_is_no_folder(session: Session, bucket: str) -> None:
    put(session, bucket, "code/model.tar.gz", "code/model.tar.gz.old")
    found = below(session, f"s3://{bucket}/code/model.tar.gz")
    assert (found.uri, found.keys) == (f"s3://{bucket}/code/model.tar.gz", ("code/model.tar.gz",))
    delete(session, found)
    assert keys(session, bucket) == ["code/model.tar.gz.old"]


def test_more_objects_than_one_request_takes(session: Session, bucket: str) -> None:
    found = below(session, f"s3://{bucket}/many/")
    many = type(found)(found.bucket, found.prefix, tuple(f"many/{number}" for number in range(2500)), 0, False)
    assert [len(each.parameters["Delete"]["Objects"]) for each in many.requests()] == [1000, 1000, 500]
    assert delete(session, many) == 2500


def test_versions_are_noticed(session: Session, bucket: str) -> None:
    session.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put(session, bucket, "bloom/a")
    assert below(session, f"s3://{bucket}/bloom/").versioned


@pytest.mark.parametrize("rest", ["", "/", "//", "/."])
def test_a_whole_bucket_is_refused(session: Session, bucket: str, rest: str) -> None:
    with pytest.raises(RemovalError, match="never a whole bucket"):
        below(session, f"s3://{bucket}{rest}")


def test_what_is_not_in_s3_is_refused(session: Session) -> None:
    with pytest.raises(RemovalError, match="nothing outside S3"):
        below(session, "bigscience/bloom")


def test_a_bucket_that_is_not_there(session: Session) -> None:
    with pytest.raises(RemovalError, match="there is no bucket 'absent-bucket'"):
        below(session, "s3://absent-bucket/bloom/")


def test_what_an_endpoint_uses_is_not_deleted(session: Session, sagemaker: Any, bucket: str, name: str) -> None:
    put(session, bucket, "bloom/config.json")
    endpoint(sagemaker, name, environment={"OPTION_MODEL_ID": f"s3://{bucket}/bloom/"})
    for place in ("bloom", "bloom/config.json"):
        with pytest.raises(RemovalError, match=f"endpoint {name} uses s3://{bucket}/bloom/"):
            check_unused(session, below(session, f"s3://{bucket}/{place}"), [])
    assert check_unused(session, below(session, f"s3://{bucket}/bloom"), [name]) == []
    assert check_unused(session, below(session, f"s3://{bucket}/bloo"), []) == []
    remove(session, name)


def test_archives_that_bloomery_uploaded_are_known_by_their_key(
    session: Session, sagemaker: Any, bucket: str, name: str
) -> None:
    ours, theirs = "bloomery/code-0123456789abcdef/model.tar.gz", "code/model.tar.gz"
    put(session, bucket, ours, theirs)
    for number, key in enumerate((ours, theirs)):
        container = {"Image": "echo", "ModelDataUrl": f"s3://{bucket}/{key}"}
        sagemaker.create_model(
            ModelName=f"{name}-{number}",
            ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
            PrimaryContainer=container,
        )
    assert uploaded_archives(session, [f"{name}-0", f"{name}-1", "absent"]) == [f"s3://{bucket}/{ours}"]
    for number in (0, 1):
        sagemaker.delete_model(ModelName=f"{name}-{number}")
