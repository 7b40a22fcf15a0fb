"""A model's data from S3 to a directory, as SageMaker makes /opt/ml/model: a process of its own, so that it can be
stopped at any moment and its gunzip takes no time from requests.

``python -m bloomery.sagemaker.emulator.containers.model_data '{"archive": URI}' STORE PARTIAL``. It prints JSON lines:
{"phase": text}, and at last {"directory": path} or {"failure": text}. PARTIAL is an empty directory on the store's
volume, which whoever started it removes, however it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.disk.publish import RECORD
from bloomery.checkpoints.fetch import LOCK, fetch_into
from bloomery.checkpoints.sources import open_source
from bloomery.errors import ConfigurationError, DeploymentFailure
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.deployment import ModelData
from bloomery.settings.extraction import extract

_LARGEST = 512 * 2**30  # bytes: the largest VolumeSizeInGB
_ENTRIES = 1_000_000


Content = list[tuple[str, str, int]]  # path below the model directory (empty: an archive), ETag, bytes


def main() -> int:
    """The child process."""
    data = ModelData(**json.loads(sys.argv[1]))
    try:
        _say(directory=str(provide(data, Path(sys.argv[2]), Path(sys.argv[3]))))
    except DeploymentFailure as error:
        _say(failure=str(error))
        return 1
    return 0


def provide(data: ModelData, store: Path, partial: Path) -> Path:
    """The directory of ``store`` with the content of ``data``: there already, or fetched now.

    It is called by what is in it, so that the same content is fetched once, and another never in its place.
    """
    uri = data.archive or data.prefix or ""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        client = _client()
        content = _archive(client, bucket, key) if data.archive else _below(client, uri, bucket, key)
        target = store / hashlib.sha256(json.dumps(sorted(content)).encode()).hexdigest()[:32]
        if not target.is_dir():
            _fetch(uri, partial, is_archive=data.archive is not None).rename(target)
    except DeploymentFailure:
        raise
    except Exception as error:  # botocore's many, and the disk's
        raise DeploymentFailure(words.NO_DOWNLOAD.format(uri=uri, detail=f" ({error})")) from error
    return target


def _client() -> Any:
    import boto3

    return boto3.session.Session().client("s3")


def _archive(client: Any, bucket: str, key: str) -> Content:
    head = client.head_object(Bucket=bucket, Key=key)
    return [("", head["ETag"], head["ContentLength"])]


def _below(client: Any, uri: str, bucket: str, prefix: str) -> Content:
    """Everything below the prefix. Raises DeploymentFailure for keys that SageMaker refuses."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [entry for page in pages for entry in page.get("Contents", ())]
    if not found:
        raise DeploymentFailure(words.NO_DOWNLOAD.format(uri=uri, detail=" (no object has this prefix)"))
    content = [(entry["Key"].removeprefix(prefix), entry["ETag"], entry["Size"]) for entry in found]
    names = {name for name, _, _ in content}
    for name in names:
        if reason := _refusal(name, names):
            raise DeploymentFailure(words.BAD_KEY.format(uri=uri, key=prefix + name, reason=reason))
    return content


def _refusal(name: str, names: set[str]) -> str:
    """Why a key cannot be a path below /opt/ml/model (the rules are those of S3ModelDataSource's documentation)."""
    parts = name.split("/")
    if name.endswith("/") or not name:
        return "it ends with a slash, as the folders do that the S3 console makes; delete that object"
    for part in parts:
        if part in ("", ".", "..") or "\0" in part:
            return f"{part!r} is no name of a file or directory"
        if len(part.encode()) > 255:
            return "a part of it is longer than 255 bytes"
    for end in range(1, len(parts)):
        if (parent := "/".join(parts[:end])) in names:
            return f"{parent} would have to be a file and a directory"
    return ""


def _fetch(uri: str, partial: Path, *, is_archive: bool) -> Path:
    """The complete content, in a directory below ``partial``."""
    content, archives = partial / "content", partial / "archive"
    if is_archive:
        _download(uri, archives)
        (archive,) = archives.iterdir()
        # Whatever it is called, SageMaker takes it for a gzip tar.
        archive = archive.rename(partial / "model.tar.gz")
        _say(phase="extracting the model data")
        content.mkdir()
        try:
            extract(archive, content, _LARGEST, _ENTRIES, links=False)
        except ConfigurationError as error:
            detail = f" ({str(error).replace(str(archive), 'it').partition(';')[0]})"
            raise DeploymentFailure(words.NO_EXTRACTION.format(uri=uri, detail=detail)) from error
    else:
        _download(uri, content)
    _make_read_only(content)
    return content


def _download(uri: str, directory: Path) -> None:
    """Every object, as it is, and nothing else."""
    emulated = os.environ.get("AWS_ENDPOINT_URL_S3") == os.environ.get("AWS_ENDPOINT_URL")
    # The emulated S3 reads the whole object for every range of it, and its CRC64NVME are wrong.
    options = FetchOptions(part_bytes=2**40, verify=False, resume=False) if emulated else FetchOptions(resume=False)
    fetch_into(open_source(uri), directory, options=options, allow_patterns=["*"], seen=_Progress().seen)
    for name in (LOCK, RECORD):
        (directory / name).unlink(missing_ok=True)


def _make_read_only(root: Path) -> None:
    """Files only: who may not write a directory cannot delete what is in it, and this is the user's disk."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            os.chmod(path, os.stat(path).st_mode & ~0o222)


class _Progress:
    """Says how far it is, once a second at most."""

    def __init__(self) -> None:
        self._said = 0.0

    def seen(self, done: int, total: int) -> None:
        """From any thread; a display may be late by one piece."""
        now = time.monotonic()
        if now - self._said >= 1:
            self._said = now
            _say(phase=f"downloading the model data ({_size(done)} of {_size(total)})")


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _say(**message: str) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
