"""A model's data from S3 to a directory, as SageMaker makes /opt/ml/model: a process of its own, so that it can be
stopped at any moment and its gunzip takes no time from requests.

``python -m bloomery.sagemaker.emulator.model_data '{"archive": URI}' STORE PARTIAL``. It prints JSON lines:
{"phase": text}, and at last {"directory": path} or {"failure": text}. PARTIAL is an empty directory on the store's
volume, which whoever started it removes, however it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError, DeploymentFailure
from bloomery.sagemaker.emulator import words
from bloomery.sagemaker.emulator.deployment import ModelData
from bloomery.settings.extraction import extract

_LARGEST = 512 * 2**30  # bytes: the largest VolumeSizeInGB
_ENTRIES = 1_000_000
_THREADS = 4


@dataclass(frozen=True)
class Object:
    """One object of the model's data. ``name``: its path below the model directory; of an archive, empty."""

    key: str
    name: str
    etag: str
    size: int


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
        objects = _archive(client, bucket, key) if data.archive else list(_below(client, uri, bucket, key))
        target = store / _digest(objects)
        if not target.is_dir():
            _fetch(client, bucket, uri, objects, partial).rename(target)
    except DeploymentFailure:
        raise
    except Exception as error:  # botocore's many, and the disk's
        raise DeploymentFailure(words.NO_DOWNLOAD.format(uri=uri, detail=f" ({error})")) from error
    return target


def _client() -> Any:
    import boto3

    return boto3.session.Session().client("s3")


def _archive(client: Any, bucket: str, key: str) -> list[Object]:
    head = client.head_object(Bucket=bucket, Key=key)
    return [Object(key, "", head["ETag"], head["ContentLength"])]


def _below(client: Any, uri: str, bucket: str, prefix: str) -> Iterator[Object]:
    """Everything below the prefix, with its path. Raises DeploymentFailure for keys that SageMaker refuses."""
    found = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        found += page.get("Contents", ())
    if not found:
        raise DeploymentFailure(words.NO_DOWNLOAD.format(uri=uri, detail=" (no object has this prefix)"))
    names = {entry["Key"].removeprefix(prefix) for entry in found}
    for entry in found:
        name = entry["Key"].removeprefix(prefix)
        if reason := _refusal(name, names):
            raise DeploymentFailure(words.BAD_KEY.format(uri=uri, key=entry["Key"], reason=reason))
        yield Object(entry["Key"], name, entry["ETag"], entry["Size"])


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


def _digest(objects: list[Object]) -> str:
    content = [[item.name, item.etag, item.size] for item in sorted(objects, key=lambda item: item.name)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _fetch(client: Any, bucket: str, uri: str, objects: list[Object], partial: Path) -> Path:
    """The complete content, in a directory below ``partial``."""
    content = partial / "content"
    content.mkdir()
    if objects[0].name:
        _download(client, bucket, [(item, content / item.name) for item in objects])
    else:
        archive = partial / "model.tar.gz"  # whatever it is called, SageMaker takes it for a gzip tar
        _download(client, bucket, [(objects[0], archive)])
        _say(phase="extracting the model data")
        try:
            extract(archive, content, _LARGEST, _ENTRIES, links=False)
        except ConfigurationError as error:
            detail = f" ({str(error).replace(str(archive), 'it').partition(';')[0]})"
            raise DeploymentFailure(words.NO_EXTRACTION.format(uri=uri, detail=detail)) from error
    _make_read_only(content)
    return content


def _download(client: Any, bucket: str, wanted: list[tuple[Object, Path]]) -> None:
    from boto3.s3.transfer import TransferConfig

    # Not in ranges: the emulated S3 reads the whole object for each of them.
    emulated = os.environ.get("AWS_ENDPOINT_URL_S3") == os.environ.get("AWS_ENDPOINT_URL")
    config = TransferConfig(multipart_threshold=2**40 if emulated else 2**26)
    progress = _Progress(sum(item.size for item, _ in wanted))

    def one(item: Object, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, item.key, str(path), Config=config, Callback=progress.add)

    with ThreadPoolExecutor(_THREADS) as pool:
        for future in [pool.submit(one, item, path) for item, path in wanted]:
            future.result()


def _make_read_only(root: Path) -> None:
    """Files only: who may not write a directory cannot delete what is in it, and this is the user's disk."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            os.chmod(path, os.stat(path).st_mode & ~0o222)


class _Progress:
    """Says how far it is, once a second at most."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._said = total, 0, time.monotonic()
        _say(phase=f"downloading the model data ({_size(total)})")

    def add(self, count: int) -> None:
        self._done += count  # from several threads; a display may be off by one piece
        now = time.monotonic()
        if now - self._said >= 1:
            self._said = now
            _say(phase=f"downloading the model data ({_size(self._done)} of {_size(self._total)})")


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _say(**message: str) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
