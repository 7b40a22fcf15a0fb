"""Objects and unfinished uploads, kept as files: DIRECTORY/bucket/key."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from tests.support.faulty_s3.answers import S3Error
from tests.support.faulty_s3.checksums import crc64nvme_of_file

_UPLOADS = ".uploads"  # no bucket's name begins with a dot
_ODD = {"": "%", ".": "%2E", "..": "%2E%2E"}  # segments that keys may have and paths may not


@dataclass(frozen=True)
class Object:
    """One version of an object. ``checksums``: algorithm -> value; ``kind``: FULL_OBJECT or COMPOSITE."""

    key: str
    path: Path
    size: int
    modified: float
    etag: str
    checksums: Mapping[str, str]
    kind: str = "FULL_OBJECT"


@dataclass
class Part:
    """One part of an upload."""

    path: Path
    size: int
    etag: str
    checksums: Mapping[str, str]


@dataclass
class Upload:
    """A multipart upload that is not complete."""

    bucket: str
    key: str
    algorithm: str
    kind: str
    identity: str = field(default_factory=lambda: secrets.token_hex(16))
    parts: dict[int, Part] = field(default_factory=dict)


class Objects:
    """Everything below ``directory``. ``with_checksums``: whether objects that came without one have CRC64NVME."""

    def __init__(self, directory: Path, with_checksums: bool) -> None:
        self.directory, self._with_checksums = directory, with_checksums
        self._known: dict[Path, tuple[tuple[int, int, int], Object]] = {}
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.RLock()

    def bucket(self, name: str) -> Path:
        """Its directory; raises NoSuchBucket."""
        path = self.directory / name
        if name.startswith(".") or not path.is_dir():
            raise S3Error(404, "NoSuchBucket", "The specified bucket does not exist")
        return path

    def get(self, bucket: str, key: str) -> Object:
        """The object as it is now; raises NoSuchKey."""
        item, file = self.open(bucket, key)
        file.close()
        return item

    def open(self, bucket: str, key: str) -> tuple[Object, BinaryIO]:
        """The object as it is now, and its bytes, which stay those of this version; raises NoSuchKey."""
        path = self._path(bucket, key)
        try:
            file = path.open("rb")
        except OSError:
            raise S3Error(404, "NoSuchKey", "The specified key does not exist.") from None
        stat = os.fstat(file.fileno())
        version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            known = self._known.get(path)
            if known is None or known[0] != version:
                # A file that somebody put there: its ETag is opaque, as S3's is for encrypted objects.
                etag = hashlib.md5(repr(version).encode()).hexdigest()
                values = {"crc64nvme": crc64nvme_of_file(file.fileno())} if self._with_checksums else {}
                known = version, Object(key, path, stat.st_size, stat.st_mtime, etag, values)
                self._known[path] = known
            return known[1], file

    def keys(self, bucket: str) -> Iterator[str]:
        """In S3's order."""
        root = self.bucket(bucket)
        found = [
            "/".join("" if part == "%" else unquote(part) for part in path.relative_to(root).parts)
            for path in root.rglob("*")
            if path.is_file()
        ]
        return iter(sorted(found, key=str.encode))

    def put(self, bucket: str, key: str, data: bytes, values: Mapping[str, str]) -> Object:
        """Write a whole object. ``values``: its verified checksums."""
        temporary = self._temporary()
        temporary.write_bytes(data)
        return self._publish(bucket, key, temporary, hashlib.md5(data).hexdigest(), values, "FULL_OBJECT")

    def replace(self, bucket: str, key: str, content: str | None) -> None:
        """Give the object the content of a file, or its own with every bit flipped. Who reads the old version goes on
        with it."""
        flipped = bytes(255 - value for value in range(256))
        data = Path(content).read_bytes() if content else self.get(bucket, key).path.read_bytes().translate(flipped)
        self.put(bucket, key, data, {})

    def delete(self, bucket: str, key: str) -> None:
        """Nothing happens when it is not there."""
        self._path(bucket, key).unlink(missing_ok=True)

    def create_upload(self, bucket: str, key: str, algorithm: str, kind: str) -> Upload:
        """A new multipart upload."""
        self.bucket(bucket)
        upload = Upload(bucket, key, algorithm, kind)
        with self._lock:
            self._uploads[upload.identity] = upload
        return upload

    def upload(self, identity: str) -> Upload:
        """Raises NoSuchUpload."""
        with self._lock:
            if identity not in self._uploads:
                raise S3Error(404, "NoSuchUpload", "The specified multipart upload does not exist.")
            return self._uploads[identity]

    def uploads(self, bucket: str) -> list[Upload]:
        """Those of ``bucket`` that are not complete."""
        with self._lock:
            return [upload for upload in self._uploads.values() if upload.bucket == bucket]

    def put_part(self, upload: Upload, number: int, data: bytes, values: Mapping[str, str]) -> Part:
        """A part; one that has this number already is replaced."""
        path = self._temporary()
        path.write_bytes(data)
        part = Part(path, len(data), hashlib.md5(data).hexdigest(), values)
        with self._lock:
            old, upload.parts[number] = upload.parts.get(number), part
        if old is not None:
            old.path.unlink()
        return part

    def join(self, upload: Upload, numbers: list[int], values: Mapping[str, str]) -> Object:
        """Make the object of these parts, and end the upload."""
        temporary = self._temporary()
        with temporary.open("wb") as whole:
            for number in numbers:
                with upload.parts[number].path.open("rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
        digests = b"".join(bytes.fromhex(upload.parts[number].etag) for number in numbers)
        etag = f"{hashlib.md5(digests).hexdigest()}-{len(numbers)}"
        made = self._publish(upload.bucket, upload.key, temporary, etag, values, upload.kind)
        self.abort(upload)
        return made

    def abort(self, upload: Upload) -> None:
        """Remove the upload with its parts."""
        with self._lock:
            self._uploads.pop(upload.identity, None)
        for part in upload.parts.values():
            part.path.unlink(missing_ok=True)

    def _publish(
        self, bucket: str, key: str, temporary: Path, etag: str, values: Mapping[str, str], kind: str
    ) -> Object:
        path = self._path(bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not values and self._with_checksums:
            with temporary.open("rb") as file:
                values = {"crc64nvme": crc64nvme_of_file(file.fileno())}
        with self._lock:
            os.replace(temporary, path)
            stat = path.stat()
            made = Object(key, path, stat.st_size, stat.st_mtime, etag, values, kind)
            self._known[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size), made
        return made

    def _path(self, bucket: str, key: str) -> Path:
        segments = (_ODD.get(segment, segment.replace("%", "%25")) for segment in key.split("/"))
        return self.bucket(bucket).joinpath(*segments)

    def _temporary(self) -> Path:
        directory = self.directory / _UPLOADS
        directory.mkdir(exist_ok=True)
        return directory / secrets.token_hex(16)
