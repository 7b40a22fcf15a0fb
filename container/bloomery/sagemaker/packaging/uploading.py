"""An archive in S3, under a key that says what is in it: the same archive is there already, another is never in its
place."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from bloomery.errors import CallError, PackagingError
from bloomery.sagemaker.packaging.archive import OUTPUT, Archive
from bloomery.sagemaker.session import Session

_LARGEST = 5 * 10**9  # bytes of an object that one request can bring
_DIGITS = 16  # of the digest in the key
_SCHEME = "s3://"


def destination(archive: Archive, uri: str) -> str:
    """Where ``upload`` puts ``archive`` below ``uri`` (``s3://bucket/prefix/``). Raises PackagingError."""
    bucket, _, prefix = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not bucket or any(part in ("", ".", "..") for part in prefix.split("/")[:-1]):
        raise PackagingError(f"{uri} is no place in S3; write s3://bucket/prefix/")
    folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    return f"{_SCHEME}{bucket}/{folder}{archive.name}-{archive.sha256[:_DIGITS]}/{OUTPUT}"


def upload(archive: Archive, uri: str, session: Session) -> str:
    """Bring ``archive`` below ``uri``, unless it is there; where it is then, for ``ModelDataUrl``.

    S3 compares what it receives with the archive's SHA-256. Raises PackagingError, TargetError and CallError.
    """
    target = destination(archive, uri)
    if archive.path is None:
        raise PackagingError(f"{archive.name} was not written, so it cannot be uploaded: give package() an output")
    bucket, _, key = target.removeprefix(_SCHEME).partition("/")
    if not _there(archive, bucket, key, session):
        _send(archive, archive.path, bucket, key, session)
    return target


def _there(archive: Archive, bucket: str, key: str, session: Session) -> bool:
    try:
        head = session.call("s3", "HeadObject", Bucket=bucket, Key=key)
    except CallError as error:
        # S3 answers 403 for what is not there when the caller may not list the bucket.
        if error.code in ("404", "NoSuchKey", "403", "NoSuchBucket"):
            return False
        raise
    return bool(head["ContentLength"] == archive.size and head.get("Metadata", {}).get("sha256") == archive.sha256)


def _send(archive: Archive, path: Path, bucket: str, key: str, session: Session) -> None:
    if archive.size > _LARGEST:
        raise PackagingError(
            f"{path} has {archive.size / 1e9:.1f} GB, and an archive may have 5: bring the weights to S3 as they are "
            "(bloomery upload DIR s3://bucket/prefix/) and name that prefix as the model's ModelDataSource"
        )
    try:
        with path.open("rb") as body:
            if hashlib.file_digest(body, "sha256").hexdigest() != archive.sha256:
                raise PackagingError(f"{path} has changed since it was made: package the directory again")
            body.seek(0)
            session.call(
                "s3",
                "PutObject",
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType="application/gzip",
                ChecksumSHA256=base64.b64encode(bytes.fromhex(archive.sha256)).decode(),
                Metadata={"sha256": archive.sha256},  # some servers keep no checksum
            )
    except OSError as error:
        raise PackagingError(f"{path} cannot be read: {error}") from error
    except CallError as error:
        if error.code != "NoSuchBucket":
            raise
        raise PackagingError(
            f"{_SCHEME}{bucket} does not exist in this account's reach: check its name, or make it "
            f"(aws s3 mb {_SCHEME}{bucket} --region {session.region})"
        ) from error
