"""Fetch a prefix of an S3 bucket, file by file, so that what is on the disk is whole or absent.

A file is written under a temporary name and renamed when its size is right. The manifest beside the files notes each
object's ETag: a fetch that was killed goes on with the files that are missing, and a changed object is fetched anew.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery.checkpoints.choice import wanted_files
from bloomery.checkpoints.progress import Progress, check_room
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

MANIFEST = ".fetched.json"
_THREADS = 8
_ATTEMPTS = 5
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Object:
    key: str
    name: str  # relative to the prefix
    size: int
    etag: str


def fetch(uri: str, target: Path, allow_patterns: Sequence[str] | None = None) -> None:
    """Make ``target`` hold the wanted files of ``uri`` as they are now. The caller holds the lock of ``target``."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        client = _client()
        objects = _listing(client, uri, bucket, prefix.strip("/"), allow_patterns)
        missing = _missing(target, objects)
        if not missing:
            log.info("%s: already in %s", uri, target)
            return
        check_room(uri, target, sum(item.size for item in missing))
        _download(client, bucket, uri, target, objects, missing)
    except (ClientError, BotoCoreError) as error:
        raise _explained(error, uri) from error
    except OSError as error:
        raise CheckpointError(
            f"{uri} could not be written to {target} ({error.strerror or error}): free some space, or set TMPDIR to a "
            "directory on a larger volume (on SageMaker: VolumeSizeInGB)."
        ) from error


def fetch_object(uri: str, target: Path) -> None:
    """Make the file ``target`` hold the one object that ``uri`` names. Raises CheckpointError."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        client = _client()
        check_room(uri, target.parent, client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        client.download_file(bucket, key, str(target))
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            raise CheckpointError(f"{uri}: there is no such object; check the bucket and the name") from error
        raise _explained(error, uri) from error
    except OSError as error:
        raise CheckpointError(f"{uri} could not be written to {target} ({error.strerror or error})") from error


def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": _ATTEMPTS}
    # A session of its own: boto3's shared one keeps credentials for as long as the process lives.
    return boto3.session.Session().client("s3", config=Config(retries=retries, max_pool_connections=_THREADS))


def _listing(client: Any, uri: str, bucket: str, prefix: str, allow_patterns: Sequence[str] | None) -> list[_Object]:
    """The wanted objects below ``prefix``, which is a folder: s3://b/opt does not mean s3://b/opt-30b."""
    folder = f"{prefix}/" if prefix else ""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
        for entry in page.get("Contents", ()):
            name = entry["Key"].removeprefix(folder)
            if name and not name.endswith("/"):
                found[name] = _Object(entry["Key"], name, entry["Size"], entry["ETag"])
    if not found:
        raise CheckpointError(
            f"{uri} holds no objects: check the bucket and the prefix (aws s3 ls {uri.rstrip('/')}/)."
        )
    chosen = [found[name] for name in wanted_files(found, allow_patterns)]
    if not chosen:
        raise CheckpointError(f"{uri} holds {len(found)} objects, and none matches {list(allow_patterns or ())}.")
    for item in chosen:
        if item.name.startswith("/") or ".." in Path(item.name).parts:
            raise CheckpointError(f"{uri} holds an object named {item.key!r}, which would leave {prefix!r}: remove it.")
    return chosen


def _missing(target: Path, objects: list[_Object]) -> list[_Object]:
    """The objects that ``target`` lacks or has in another version; files that the source lost are removed."""
    noted = _read_manifest(target)
    for name in noted.keys() - {item.name for item in objects}:
        (target / name).unlink(missing_ok=True)  # a shard of the former version would be loaded with the new ones
    return [
        item for item in objects if noted.get(item.name) != item.etag or not _has_size(target / item.name, item.size)
    ]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _read_manifest(target: Path) -> dict[str, str]:
    """The ETag of every file that is complete."""
    try:
        noted = json.loads((target / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _write_manifest(target: Path, noted: dict[str, str]) -> None:
    temporary = target / (MANIFEST + ".part")
    temporary.write_text(json.dumps(noted, indent=1, sort_keys=True))
    temporary.replace(target / MANIFEST)


def _download(client: Any, bucket: str, uri: str, target: Path, objects: list[_Object], missing: list[_Object]) -> None:
    """Fetch ``missing``, noting every file in the manifest as it is complete."""
    wanted = {item.name: item.etag for item in objects}
    noted = {name: etag for name, etag in _read_manifest(target).items() if wanted.get(name) == etag}
    progress = Progress(uri, sum(item.size for item in missing))
    target.mkdir(exist_ok=True)
    with _pool(progress) as pool:
        running = {pool.submit(_download_one, client, bucket, item, target, progress): item for item in missing}
        while running:
            complete, _ = wait(running, timeout=0.5, return_when=FIRST_EXCEPTION)
            progress.report()
            for future in complete:
                future.result()
                item = running.pop(future)
                noted[item.name] = item.etag
            if complete:
                _write_manifest(target, noted)
    progress.report(last=True)


@contextmanager
def _pool(progress: Progress) -> Iterator[ThreadPoolExecutor]:
    """Threads that stop within one chunk when one of them fails, so that an error does not wait for 300 GB."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch")
    try:
        yield pool
    finally:
        progress.cancelled.set()
        pool.shutdown(cancel_futures=True)


def _download_one(client: Any, bucket: str, item: _Object, target: Path, progress: Progress) -> None:
    """One object to one file. A broken connection goes on where it broke, as long as the object is the same."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    path = target / item.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    position = 0
    with part.open("wb") as file:
        for attempt in range(1, _ATTEMPTS + 1):
            # A Range of an empty object is an error, and a whole object needs none.
            bytes_from = {"Range": f"bytes={position}-"} if position else {}
            try:
                body = client.get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag, **bytes_from)["Body"]
                while not progress.cancelled.is_set() and (chunk := body.read(_CHUNK)):
                    file.write(chunk)
                    position += len(chunk)
                    progress.add(len(chunk))
                break
            except (HTTPClientError, IncompleteReadError):
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(0.1 * 2**attempt)
    if progress.cancelled.is_set():
        part.unlink()
        return
    if position != item.size:
        raise CheckpointError(f"s3://{bucket}/{item.key} gave {position} bytes instead of {item.size}: fetch it again.")
    os.replace(part, path)


def _explained(error: Exception, uri: str) -> CheckpointError:
    """What went wrong with S3 and what to do, in one sentence each."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    response = getattr(error, "response", {})
    code = str(response.get("Error", {}).get("Code", type(error).__name__))
    remedy = {
        "NoCredentialsError": "no AWS credentials were found: give the machine or the endpoint a role, or set "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "NoSuchBucket": f"the bucket {bucket} does not exist: check its name, its account and AWS_ENDPOINT_URL",
        "NoSuchKey": "an object vanished while it was fetched: upload the checkpoint again and retry",
        "404": "an object vanished while it was fetched: upload the checkpoint again and retry",
        "PreconditionFailed": "an object was replaced while it was fetched: retry when the upload is complete",
        "412": "an object was replaced while it was fetched: retry when the upload is complete",
        "AccessDenied": f"access is denied: the role or key needs s3:ListBucket on {bucket} and s3:GetObject on "
        f"{bucket}/*",
        "InvalidAccessKeyId": "the access key is unknown: check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "the session token has expired: get new credentials",
        "EndpointConnectionError": "the S3 endpoint cannot be reached: check the network, the region and "
        "AWS_ENDPOINT_URL",
        "ParamValidationError": "the name is not valid: write s3://bucket/prefix",
    }.get(code)
    return CheckpointError(f"{uri} could not be fetched: {remedy or 'S3 answered ' + code} ({error}).")
