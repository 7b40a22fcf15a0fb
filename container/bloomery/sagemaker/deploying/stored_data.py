"""What lies in S3: the archive, an uncompressed model, the checkpoint."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Iterator

from bloomery.errors import AccessError, CallError
from bloomery.sagemaker.deploying.deployment import Deployment
from bloomery.sagemaker.finding import Finding, error, remark
from bloomery.sagemaker.session import Session

_START = 256 * 1024  # bytes of an archive that are looked at
_MANY = 1000  # keys, as one call lists them
_LARGE = 2 * 2**30  # bytes of an archive that is better none
_CONFIGURED = ("serving.properties", "model.py")
_ABSENT = ("NoSuchKey", "404", "NotFound")


def split(uri: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def model_data(session: Session, wanted: Deployment, *, uploads: bool) -> Iterator[Finding]:
    """The archive or the prefix; with ``uploads`` only the bucket that it is going to."""
    uri = wanted.model_data
    if uri is None or not uri.startswith("s3://"):
        return
    if uploads and session.is_emulator:  # where the bucket is made, too
        return
    bucket, key = split(uri)
    wrong = list(_bucket(session, "model data", bucket, needed_here=True))
    yield from wrong
    if uploads or any(each.level == "error" for each in wrong):
        return
    if wanted.is_prefix:
        yield from _prefix(session, bucket, key, uri)
    else:
        yield from _archive(session, bucket, key, uri)


def checkpoint(session: Session, wanted: Deployment) -> Iterator[Finding]:
    """One LIST: whether there is anything that looks like weights."""
    uri = wanted.checkpoint
    if uri is None or not uri.startswith("s3://"):
        return
    bucket, key = split(uri)
    wrong = list(_bucket(session, "checkpoint", bucket, needed_here=False))
    yield from wrong
    if any(each.level == "error" for each in wrong):
        return
    prefix = key if not key or key.endswith("/") else f"{key}/"
    names = [name for name, _ in _list(session, bucket, prefix)]
    if not names:
        yield error("checkpoint", f"there is nothing at {uri}: `aws s3 ls s3://{bucket}/` shows what there is")
    elif "config.json" not in names and len(names) < _MANY:
        yield error(
            "checkpoint",
            f"{uri} has no config.json; it has {', '.join(sorted(names)[:5])}: name the directory that holds it",
        )


def _bucket(session: Session, what: str, bucket: str, *, needed_here: bool) -> Iterator[Finding]:
    """Whether it is there, and in the endpoint's region."""
    try:
        found = session.call("s3", "HeadBucket", Bucket=bucket)
    except AccessError:
        yield remark(what, f"bucket {bucket} may not be looked at; the execution role needs to read it, not you")
        return
    except CallError as refusal:
        if refusal.code == "301":
            yield error(what, f"bucket {bucket} is in another region than {session.region}: copy what it holds")
        elif refusal.code in (*_ABSENT, "NoSuchBucket"):
            yield error(what, f"there is no bucket {bucket}: correct its name, or make it (aws s3 mb s3://{bucket})")
        else:
            raise
        return
    region = found.get("BucketRegion") or found["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    if region and region != session.region and not session.is_emulator:
        if needed_here:
            yield error(
                what, f"bucket {bucket} is in {region}, and SageMaker in {session.region} reads only from there"
            )
        else:
            yield remark(what, f"bucket {bucket} is in {region}: fetching it to {session.region} costs money and time")


def _list(session: Session, bucket: str, prefix: str) -> list[tuple[str, int]]:
    """The first keys below ``prefix``, without it, and their bytes."""
    found = session.call("s3", "ListObjectsV2", Bucket=bucket, Prefix=prefix, MaxKeys=_MANY)
    return [(each["Key"][len(prefix) :], each["Size"]) for each in found.get("Contents") or ()]


def _prefix(session: Session, bucket: str, prefix: str, uri: str) -> Iterator[Finding]:
    names = [name for name, _ in _list(session, bucket, prefix) if name]
    if not names:
        yield error("model data", f"there is nothing at {uri}: `aws s3 ls s3://{bucket}/` shows what there is")
        return
    for name in names:
        parts = name.split("/")
        if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
            yield error("model data", f"the key {prefix}{name} cannot become a file below /opt/ml/model")
    if any(name.endswith(".tar.gz") for name in names):
        yield remark(
            "model data", f"{uri} holds a .tar.gz, which is not unpacked there: name the archive itself if it is it"
        )


def _archive(session: Session, bucket: str, key: str, uri: str) -> Iterator[Finding]:
    try:
        head = session.call("s3", "HeadObject", Bucket=bucket, Key=key)
    except AccessError:
        yield remark("model data", f"{uri} may not be looked at; the execution role needs to read it, not you")
        return
    except CallError as refusal:
        if refusal.code not in _ABSENT:
            raise
        yield error("model data", f"there is no {uri}: upload it with `bloomery package DIR --upload s3://{bucket}/…`")
        return
    size = int(head["ContentLength"])
    if size > _LARGE:
        yield remark(
            "model data",
            f"the archive has {size / 1e9:.1f} GB, and is unpacked on one core, at some 0.15 GB/s: leave weights out",
        )
    if size == 0:
        yield error("model data", f"{uri} is empty")
        return
    with session.call("s3", "GetObject", Bucket=bucket, Key=key, Range=f"bytes=0-{_START - 1}")["Body"] as body:
        yield from archive_findings(body.read(), uri, whole=size <= _START)


def archive_findings(start: bytes, uri: str, *, whole: bool) -> Iterator[Finding]:
    """What the first bytes of an archive show; with ``whole`` that is all of it."""
    try:
        plain = zlib.decompressobj(wbits=31).decompress(start)
    except zlib.error:
        hint = " (it is a tar without gzip)" if start[257:262] == b"ustar" else ""
        hint = " (it is a zip)" if start[:2] == b"PK" else hint
        yield error("model data", f"{uri} is no gzip{hint}: make it with `bloomery package`")
        return
    names: list[str] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            for member in tar:
                if member.issym() or member.islnk():
                    yield error("model data", f"{uri} holds the link {member.name}, at which SageMaker fails")
                names.append(member.name.removeprefix("./"))
    except tarfile.TarError as refusal:
        if whole or not names:
            yield error("model data", f"{uri} is no gzip of a tar ({refusal}): make it with `bloomery package`")
            return
    if whole and not any(name.rpartition("/")[2] in _CONFIGURED and name.count("/") <= 1 for name in names):
        shown = json.dumps(names[:5])
        yield error(
            "model data",
            f"{uri} has neither serving.properties nor model.py at its top or one directory below; it has {shown}",
        )
