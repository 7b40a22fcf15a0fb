"""A prefix in S3 that is written to: whole objects, and objects in parts, each with its CRC64NVME."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from awscrt.checksums import crc64nvme

from bloomery.checkpoints.retry import Attempts, RetryPolicy
from bloomery.checkpoints.source import TransientError
from bloomery.checkpoints.sources.s3 import Address
from bloomery.checkpoints.sources.s3_access import S3Access
from bloomery.checkpoints.sources.s3_errors import Refusal, failed
from bloomery.errors import CheckpointError

PART_BYTES = 16 << 20
_LEAST = 5 << 20  # S3 takes no smaller part, except the last
_MOST_PARTS = 10_000
SECONDS = 20.0  # without a byte, of one attempt
PATIENCE = 60.0  # seconds, of all attempts together
_RIGHTS = (
    "s3:ListBucket and s3:ListBucketMultipartUploads on {bucket}, and s3:PutObject, s3:GetObject, "
    "s3:ListMultipartUploadParts and s3:AbortMultipartUpload on {bucket}/*"
)
T = TypeVar("T")


class CancelledError(CheckpointError):
    """The one who asked for it does not want it any more."""


@dataclass(frozen=True)
class Remote:
    """An object that is there. ``crc64nvme``: of the whole, when S3 has that."""

    size: int
    crc64nvme: int | None


@dataclass(frozen=True)
class Part:
    """A part that S3 has. ``number``: from 1."""

    number: int
    size: int
    etag: str
    crc64nvme: int | None


@dataclass(frozen=True)
class Unfinished:
    """An upload in parts that is not complete."""

    key: str
    upload_id: str


def part_bytes(size: int, wish: int = PART_BYTES) -> int:
    """How large the parts of an object of ``size`` bytes are: the same for the same size, so that they are found
    again."""
    least = -(-size // _MOST_PARTS)
    return max(_LEAST, wish, -(-least // (1 << 20)) << 20)


class S3Target:
    """For several threads at once. Methods raise CheckpointError; attempts that may succeed are made again, until
    ``cancelled`` is set."""

    def __init__(self, uri: str, threads: int) -> None:
        self.uri = uri.rstrip("/") + "/"
        self.address = Address.of(uri)
        # Attempts are counted here: botocore's own would wait for a minute each, and know of no cancelling.
        self._access = S3Access(
            self.address.bucket,
            connect_timeout=SECONDS,
            read_timeout=SECONDS,
            max_pool_connections=threads + 2,
            retries={"total_max_attempts": 1},
        )
        self.cancelled = threading.Event()
        self._reached = False

    def close(self) -> None:
        """Close its connections."""
        self._access.client.close()

    def key(self, name: str) -> str:
        """Of the object that ``name`` becomes."""
        return self.address.folder + name

    def objects(self) -> dict[str, int]:
        """The sizes of all objects below the prefix, by name."""

        def ask() -> dict[str, int]:
            pages = self._access.client.get_paginator("list_objects_v2").paginate(
                **self._access.parameters, Prefix=self.address.folder
            )
            return {
                row["Key"].removeprefix(self.address.folder): row["Size"]
                for page in pages
                for row in page.get("Contents", ())
            }

        return self._persistently(ask, self.uri)

    def head(self, name: str) -> Remote | None:
        """The object, None when there is none."""

        def ask() -> Remote | None:
            from botocore.exceptions import ClientError

            try:
                told = self._call("head_object", name, ChecksumMode="ENABLED")
            except ClientError as error:
                if Refusal.of(error).status == 404:
                    return None
                raise
            whole = told.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
            return Remote(told["ContentLength"], _decoded(told) if whole else None)

        return self._persistently(ask, self._where(name))

    def put(self, name: str, data: bytes) -> int | None:
        """Write a whole object; the CRC64NVME that S3 now has of it. Raises CheckpointError when it is another."""
        crc = crc64nvme(data)
        told = self._ask("put_object", name, Body=data, ChecksumCRC64NVME=_encoded(crc))
        return self._agreed(name, _decoded(told), crc)

    def begin(self, name: str) -> Unfinished:
        """Begin an object in parts."""
        told = self._ask("create_multipart_upload", name, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
        return Unfinished(self.key(name), told["UploadId"])

    def send(self, name: str, upload: Unfinished, number: int, data: bytes | bytearray) -> Part:
        """Send one part."""
        crc = crc64nvme(data)
        told = self._ask(
            "upload_part",
            name,
            where=f"{self._where(name)}, part {number}",
            UploadId=upload.upload_id,
            PartNumber=number,
            Body=data,
            ChecksumCRC64NVME=_encoded(crc),
        )
        return Part(number, len(data), told["ETag"], crc)

    def complete(self, name: str, upload: Unfinished, parts: Sequence[Part], size: int, crc: int) -> int | None:
        """Make the parts one object; the CRC64NVME that S3 now has of it. Raises CheckpointError when it is another."""
        listed = [
            {"PartNumber": part.number, "ETag": part.etag, "ChecksumCRC64NVME": _encoded(part.crc64nvme or 0)}
            for part in sorted(parts, key=lambda part: part.number)
        ]
        try:
            told = self._ask(
                "complete_multipart_upload",
                name,
                UploadId=upload.upload_id,
                MultipartUpload={"Parts": listed},
                ChecksumCRC64NVME=_encoded(crc),
                ChecksumType="FULL_OBJECT",
                MpuObjectSize=size,
            )
        except CheckpointError as error:
            if not _is_gone(error) or self.head(name) != Remote(size, crc):
                raise
            return crc  # an attempt before has completed it, and its answer was lost
        return self._agreed(name, _decoded(told), crc)

    def abort(self, name: str, upload: Unfinished) -> None:
        """Drop what was sent of an object in parts; nothing when it is gone already."""
        from botocore.exceptions import ClientError

        with self._explained(self._where(name)):
            try:
                self._call("abort_multipart_upload", name, UploadId=upload.upload_id)
            except ClientError as error:
                if Refusal.of(error).status != 404:
                    raise

    def delete(self, name: str) -> None:
        """Remove an object."""
        with self._explained(self._where(name)):
            self._call("delete_object", name)

    def unfinished(self) -> dict[str, list[Unfinished]]:
        """The uploads in parts below the prefix that are not complete and whose parts have checksums, by name, the
        oldest first."""

        def ask() -> dict[str, list[Unfinished]]:
            pages = self._access.client.get_paginator("list_multipart_uploads").paginate(
                **self._access.parameters, Prefix=self.address.folder
            )
            rows = [row for page in pages for row in page.get("Uploads", ())]
            found: dict[str, list[Unfinished]] = {}
            for row in sorted(rows, key=lambda row: str(row.get("Initiated", ""))):
                if (row.get("ChecksumAlgorithm"), row.get("ChecksumType")) == ("CRC64NVME", "FULL_OBJECT"):
                    name = row["Key"].removeprefix(self.address.folder)
                    found.setdefault(name, []).append(Unfinished(row["Key"], row["UploadId"]))
            return found

        return self._persistently(ask, self.uri)

    def parts(self, name: str, upload: Unfinished) -> dict[int, Part]:
        """What S3 has of an object in parts, by number."""

        def ask() -> dict[int, Part]:
            pages = self._access.client.get_paginator("list_parts").paginate(
                **self._access.parameters, Key=upload.key, UploadId=upload.upload_id
            )
            rows = [row for page in pages for row in page.get("Parts", ())]
            return {row["PartNumber"]: Part(row["PartNumber"], row["Size"], row["ETag"], _decoded(row)) for row in rows}

        return self._persistently(ask, self._where(name))

    def _where(self, name: str) -> str:
        return f"s3://{self.address.bucket}/{self.key(name)}"

    def _agreed(self, name: str, theirs: int | None, ours: int) -> int | None:
        if theirs is not None and theirs != ours:
            raise CheckpointError(
                f"{self._where(name)}: S3 has the CRC64NVME {theirs:016x} of it, and what was sent has {ours:016x}: "
                "send it again"
            )
        return theirs

    def _call(self, operation: str, name: str, **arguments: Any) -> dict[str, Any]:
        method: Callable[..., dict[str, Any]] = getattr(self._access.client, operation)
        return method(**self._access.parameters, Key=self.key(name), **arguments)

    def _ask(self, operation: str, name: str, *, where: str = "", **arguments: Any) -> dict[str, Any]:
        return self._persistently(lambda: self._call(operation, name, **arguments), where or self._where(name))

    def _persistently(self, attempt: Callable[[], T], where: str) -> T:
        attempts = Attempts(RetryPolicy(patience=PATIENCE), time.monotonic())
        while not self.cancelled.is_set():
            try:
                with self._explained(where):
                    result = attempt()
                self._reached = True
                return result
            except TransientError as error:
                self.cancelled.wait(attempts.failed(error, time.monotonic()))
        raise CancelledError(f"{where}: cancelled")

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.exceptions import ConnectionError as NoConnectionError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, HTTPClientError) or (self._reached and isinstance(error, NoConnectionError)):
                raise TransientError(f"{where}: {error}") from error  # it broke, or the server is gone for a moment
            raise failed(
                error, where, self.address.bucket, self._access.principal, done="written", rights=_RIGHTS
            ) from error


def _is_gone(error: CheckpointError) -> bool:
    """Whether S3 does not know an upload in parts any more."""
    from botocore.exceptions import ClientError

    cause = error.__cause__
    return isinstance(cause, ClientError) and Refusal.of(cause).code == "NoSuchUpload"


def _encoded(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def _decoded(told: Mapping[str, Any]) -> int | None:
    text = told.get("ChecksumCRC64NVME")
    return int.from_bytes(base64.b64decode(text), "big") if text else None
