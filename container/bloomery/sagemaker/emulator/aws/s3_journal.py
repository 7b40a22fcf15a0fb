"""Buckets and objects on disk: moto holds them in memory, and they are to outlive it.

After each successful write the object is read back from moto, however it came there (one request, parts, a copy, a
form), and put again when the emulator starts. Kept: content, content headers and metadata; not versions, tags or
policies. An object's time, and the ETag of one that came in parts, are new after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary
from xml.etree import ElementTree

import aiohttp
from yarl import URL

from bloomery.errors import BloomeryError, ConfigurationError
from bloomery.sagemaker.emulator.aws.s3_request import S3Write

logger = logging.getLogger(__name__)
_CHUNK = 1024**2  # bytes
_AT_A_TIME = 4  # objects
_BUCKET = "bucket.json"
_KEPT = {
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
}
_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class S3Journal:
    """One directory per bucket; an object is a ``.json`` file with its key and headers, which names its data."""

    def __init__(self, directory: Path, url: str, session: aiohttp.ClientSession) -> None:
        self._directory, self._url, self._session = directory, url, session
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def keep(self, write: S3Write) -> None:
        """Bring the journal to what ``write`` has made of its bucket or object."""
        if write.key:
            await self._keep_object(write.bucket, write.key)
        elif write.method == "POST":  # a form with a file, or a list of objects to delete
            await self._compare(write.bucket)
        else:
            await self._keep_bucket(write.bucket)

    async def restore(self) -> None:
        """Put everything back into an empty moto."""
        for description in sorted(self._directory.glob(f"*/{_BUCKET}")):
            bucket = json.loads(description.read_text())
            await self._create_bucket(bucket["name"], bucket["region"])
            objects = [path for path in description.parent.glob("*.json") if path.name != _BUCKET]
            limit = asyncio.Semaphore(_AT_A_TIME)

            async def put(path: Path, bucket: str = bucket["name"], limit: asyncio.Semaphore = limit) -> None:
                async with limit:
                    await self._put(bucket, path)

            await asyncio.gather(*map(put, objects))
            _sweep(description.parent, objects)

    # --- from moto to disk
    async def _keep_bucket(self, bucket: str) -> None:
        directory = self._of_bucket(bucket)
        async with self._request("GET", bucket, query="location") as answer:
            if answer.status == 404:
                shutil.rmtree(directory, ignore_errors=True)
                return
            answer.raise_for_status()
            region = ElementTree.fromstring(await answer.read()).text or ""
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / _BUCKET, json.dumps({"name": bucket, "region": region}))

    async def _keep_object(self, bucket: str, key: str) -> None:
        entry = self._of_object(bucket, key)
        # Of two writes to one object, the later look at moto is the later entry.
        async with self._locks.setdefault(str(entry), asyncio.Lock()):
            await self._copy_object(bucket, key, entry)

    async def _copy_object(self, bucket: str, key: str, entry: Path) -> None:
        before = _data(entry)
        async with self._request("GET", bucket, key) as answer:
            if answer.status == 200 and entry.parent.is_dir():
                data = entry.with_suffix(f".{uuid.uuid4().hex}")
                with data.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        await asyncio.to_thread(file.write, chunk)
                headers = _kept_headers(answer.headers)
                tag = answer.headers.get("ETag", "")
                _replace(entry, json.dumps({"key": key, "data": data.name, "headers": headers, "etag": tag}))
            else:
                entry.unlink(missing_ok=True)
        if before is not None:
            before.unlink(missing_ok=True)

    async def _compare(self, bucket: str) -> None:
        directory = self._of_bucket(bucket)
        known = {
            entry["key"]: entry["etag"]
            for entry in (json.loads(path.read_text()) for path in directory.glob("*.json") if path.name != _BUCKET)
        }
        found = await self._list(bucket)
        for key in known.keys() | found.keys():
            if known.get(key) != found.get(key):
                await self._keep_object(bucket, key)

    async def _list(self, bucket: str) -> dict[str, str]:
        """ETags by key."""
        tags: dict[str, str] = {}
        query = "list-type=2"
        while True:
            async with self._request("GET", bucket, query=query) as answer:
                if answer.status != 200:
                    return tags
                page = ElementTree.fromstring(await answer.read())
            for entry in page.iter(f"{_XML}Contents"):
                tags[entry.findtext(f"{_XML}Key", "")] = entry.findtext(f"{_XML}ETag", "")
            token = page.findtext(f"{_XML}NextContinuationToken")
            if not token:
                return tags
            query = f"list-type=2&continuation-token={quote(token, safe='')}"

    # --- from disk to moto
    async def _create_bucket(self, bucket: str, region: str) -> None:
        body = (
            f"<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            if region
            else None
        )
        async with self._request("PUT", bucket, body=body, region=region or "us-east-1") as answer:
            await _succeeded(answer, f"the bucket {bucket}")

    async def _put(self, bucket: str, path: Path) -> None:
        try:
            entry = json.loads(path.read_text())
            data = path.with_name(entry["data"])
            headers = {**entry["headers"], "Content-Length": str(data.stat().st_size)}
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"{path} is not what an emulator wrote ({error}); remove it, or choose another --state"
            ) from error
        async with self._request("PUT", bucket, entry["key"], body=_chunks(data), headers=headers) as answer:
            await _succeeded(answer, f"the object {entry['key']} of bucket {bucket}")

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        bucket: str,
        key: str = "",
        query: str = "",
        body: Any = None,
        headers: dict[str, str] | None = None,
        region: str = "us-east-1",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        path = f"/{quote(bucket)}" + (f"/{quote(key)}" if key else "") + (f"?{query}" if query else "")
        scope = (
            f"AWS4-HMAC-SHA256 Credential=journal/20170724/{region}/s3/aws4_request, SignedHeaders=host, Signature=0"
        )
        async with self._session.request(
            method,
            URL(self._url + path, encoded=True),
            data=body,
            headers={"Authorization": scope, **(headers or {})},
            skip_auto_headers=("Content-Type",),
        ) as answer:
            yield answer

    def _of_bucket(self, bucket: str) -> Path:
        return self._directory / quote(bucket, safe="")

    def _of_object(self, bucket: str, key: str) -> Path:
        return self._of_bucket(bucket) / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that belong to the object."""
    kept = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower == "content-encoding":  # aws-chunked is of the upload
            value = ",".join(part for part in value.split(",") if part.strip() != "aws-chunked")
        if value and (lower in _KEPT or lower.startswith("x-amz-meta-")):
            kept[name] = value
    return kept


def _data(entry: Path) -> Path | None:
    """The data of an object that is in the journal."""
    try:
        return entry.with_name(json.loads(entry.read_text())["data"])
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    """Whoever reads the file, also after a kill, finds the old content or the new."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(text)
    temporary.replace(path)


def _sweep(directory: Path, entries: list[Path]) -> None:
    """Remove what a kill has left half written."""
    wanted = {_BUCKET, *(path.name for path in entries), *(data.name for path in entries if (data := _data(path)))}
    for path in directory.iterdir():
        if path.name not in wanted:
            path.unlink()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


async def _succeeded(answer: aiohttp.ClientResponse, what: str) -> None:
    if answer.status >= 300:
        reason = (await answer.text())[:500]
        raise BloomeryError(f"{what} cannot be restored from the journal: moto answered {answer.status}: {reason}")
