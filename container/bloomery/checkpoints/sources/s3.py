"""``s3://bucket/prefix``, a single object, or an access point."""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bloomery.checkpoints.source import Body, ChangedError, Entry
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.card import licence_of
from bloomery.checkpoints.sources.names import check_names
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.sources.s3_access import POOL, S3Access
from bloomery.checkpoints.sources.s3_errors import DeniedError, Refusal
from bloomery.checkpoints.wire.http import Http, HttpClient, HttpConnection
from bloomery.checkpoints.wire.ranges import Empty, asked, range_body, span
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError

_ARN = re.compile(r"(arn:[^/]*:accesspoint[:/][^/]+)/?(.*)", re.DOTALL)
_MOST_OBJECTS = 50_000  # a bucket's root, or a data set; a checkpoint has a few hundred
_REFUSAL_LIMIT = 64 << 10
_TURNS = 4  # of one read: the first, in another region, with other credentials, and one to spare


@dataclass(frozen=True)
class Address:
    """``bucket``: its name, or an access point's ARN or alias. ``prefix``: without a slash at either end."""

    bucket: str
    prefix: str
    is_folder: bool

    @classmethod
    def of(cls, uri: str) -> Address:
        """From ``s3://bucket/prefix``; raises CheckpointError."""
        rest = uri.removeprefix("s3://")
        if "@" in rest.partition("/")[0]:  # botocore would quote it in its own error
            raise CheckpointError(
                f"s3://***@{rest.partition('@')[2]}: an s3:// address holds no credentials; give them as "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or as a role"
            )
        arn = _ARN.fullmatch(rest)
        bucket, prefix = arn.groups() if arn else rest.partition("/")[::2]
        if not bucket:
            raise CheckpointError(f"{uri} cannot be fetched: write s3://bucket/prefix")
        return cls(bucket, prefix.strip("/"), prefix.endswith("/") or not prefix)

    @property
    def folder(self) -> str:
        """What the keys below the prefix begin with."""
        return f"{self.prefix}/" if self.prefix else ""


class S3Source:
    """The objects below a prefix, which is a folder: ``s3://b/opt`` does not mean ``s3://b/opt-30b``. Where there is no
    such folder, the one object of that name.
    """

    def __init__(self, uri: str, *, transport: Transport | None = None, requester_pays: bool | None = None) -> None:
        """Raises CheckpointError for what is no address in S3, and ConfigurationError; asks nobody."""
        self.address = Address.of(uri)
        self._given = transport or Transport.read()
        self.access = S3Access(
            self.address.bucket,
            requester_pays=requester_pays,
            connect_timeout=self._given.connect_timeout,
            read_timeout=self._given.stall_timeout,
        )
        self._uri = uri
        self._found: dict[str, _Object] = {}  # by name

    @property
    def uri(self) -> str:
        """What the user wrote."""
        return self._uri

    @cached_property
    def licence(self) -> str | None:
        """Of README.md below the prefix."""
        return licence_of(self.connect, lambda: [item.entry for item in self._found.values()] or self.entries())

    def entries(self) -> Sequence[Entry]:
        """Every object, as it is now. Raises CheckpointError, UnreachableError."""
        found = self._folder_or_object()
        if not found:
            raise CheckpointError(self._nothing())
        check_names(self._uri, (item.entry.name for item in found))
        self._found = {item.entry.name: item for item in found}
        return [item.entry for item in found]

    def checksummed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """With S3's own checksums of whole objects, and those of a MANIFEST.json for the rest."""
        listed = self._manifest()
        objects = [self._found[entry.name] for entry in entries if entry.name in self._found]
        asked_for = [item.entry for item in objects if item.may_vouch(known=item.entry.name in listed)]
        with ThreadPoolExecutor(POOL, "checksums") as pool:
            told = {entry.name: entry for entry in pool.map(self._head, asked_for)}
        return manifest.vouched([told.get(entry.name, entry) for entry in entries], listed)

    def connect(self, http: Http = HttpConnection) -> S3Connection:
        """Opens nothing until it reads."""
        return S3Connection(self, http(self._transport))

    def key(self, entry: Entry) -> str:
        """The key of the object that ``entry`` is."""
        item = self._found.get(entry.name)
        return item.key if item is not None else self.address.folder + entry.name

    @cached_property
    def _transport(self) -> Transport:
        return replace(self._given, ca_bundle=self.access.ca_bundle or self._given.ca_bundle)

    def _folder_or_object(self) -> list[_Object]:
        try:
            found = self._below(self.address.folder)
        except DeniedError:
            # Who may read one object need not be allowed to list.
            with suppress(CheckpointError):
                if not self.address.is_folder and (found := self._single()):
                    return found
            raise
        return found or ([] if self.address.is_folder else self._single())

    def _below(self, folder: str) -> list[_Object]:
        found: list[_Object] = []
        following: dict[str, str] | None = {}
        while following is not None:
            page = self.access.call(self._uri, "list_objects_v2", Prefix=folder, **following)
            # Keys that end with a slash are folders, as the console makes them.
            rows = (row for row in page.get("Contents", ()) if not row["Key"].endswith("/"))
            found += (_Object.of(row, folder) for row in rows)
            following = {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else None
            if len(found) > _MOST_OBJECTS:
                raise CheckpointError(
                    f"{self._uri} holds over {_MOST_OBJECTS} objects, which is no checkpoint: name the folder that "
                    "holds config.json and the weights."
                )
        return found

    def _single(self) -> list[_Object]:
        try:
            told = self.access.call(self._uri, "head_object", Key=self.address.prefix)
        except ChangedError:  # there is none
            return []
        name = self.address.prefix.rpartition("/")[2]
        return [_Object(self.address.prefix, Entry(name, told["ContentLength"], told["ETag"]), None)]

    def _nothing(self) -> str:
        what = "holds no objects" if self.address.is_folder else "is neither a folder with objects nor an object"
        if near := self._nearby():
            return f"{self._uri} {what}: did you mean {' or '.join(near)}?"
        return f"{self._uri} {what}: check the bucket and the prefix (aws s3 ls s3://{self.address.bucket}/)."

    def _nearby(self) -> list[str]:
        """Folders with a model whose names are like the prefix, among the first objects beside it and of the bucket."""
        above = self.address.prefix.rpartition("/")[0]
        folders: set[str] = set()
        for beside in {f"{above}/" if above else "", ""}:
            page = self.access.call(self._uri, "list_objects_v2", Prefix=beside)
            keys = (row["Key"] for row in page.get("Contents", ()))
            folders |= {key.rpartition("/")[0] for key in keys if key.endswith("/config.json")}
        alike = difflib.get_close_matches(self.address.prefix, folders, cutoff=0.5)
        return [f"s3://{self.address.bucket}/{folder}/" for folder in alike]

    def _manifest(self) -> dict[str, manifest.Listed]:
        item = self._found.get(manifest.NAME)
        if item is None or item.entry.size > manifest.LIMIT:
            return {}
        with closing(self.connect()) as connection:
            return manifest.read(read_bytes(connection, item.entry), f"{self._uri.rstrip('/')}/{manifest.NAME}")

    def _head(self, entry: Entry) -> Entry:
        where = f"s3://{self.address.bucket}/{self.key(entry)}"
        told = self.access.call(where, "head_object", Key=self.key(entry), ChecksumMode="ENABLED")
        if told.get("ETag") != entry.identity or told.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
            return entry
        crc, sha = _decoded(told.get("ChecksumCRC64NVME"), 8), _decoded(told.get("ChecksumSHA256"), 32)
        return replace(
            entry,
            crc64nvme=entry.crc64nvme if crc is None else int.from_bytes(crc, "big"),
            sha256=entry.sha256 if sha is None else sha.hex(),
        )


def _decoded(text: str | None, size: int) -> bytes | None:
    """A checksum of ``size`` bytes; None without one, and for a composite one, which ends with "-3"."""
    try:
        data = base64.b64decode(text or "", validate=True)
    except ValueError:
        return None
    return data if len(data) == size else None


@dataclass(frozen=True)
class _Object:
    """``vouches``: whether S3 says that it has a checksum of the whole of it, None when it does not say."""

    key: str
    entry: Entry
    vouches: bool | None

    @classmethod
    def of(cls, row: dict[str, Any], folder: str) -> _Object:
        algorithms, kind = row.get("ChecksumAlgorithm"), row.get("ChecksumType")
        vouches = None
        if kind:
            vouches = kind == "FULL_OBJECT" and bool({"CRC64NVME", "SHA256"} & set(algorithms or ()))
        return cls(row["Key"], Entry(row["Key"].removeprefix(folder), row["Size"], row["ETag"]), vouches)

    def may_vouch(self, known: bool) -> bool:
        """Whether to ask S3 for the checksum. ``known``: a manifest has one, which saves a vain request."""
        return not known if self.vouches is None else self.vouches


class S3Connection:
    """One kept-alive connection. Every request is signed by itself."""

    def __init__(self, source: S3Source, http: HttpClient) -> None:
        self._source, self._http = source, http

    @contextmanager
    def read(self, entry: Entry, start: int, length: int) -> Iterator[Body]:
        """As ``source.Connection`` has it."""
        if not length:
            yield Empty()
            return
        source, key = self._source, self._source.key(entry)
        what = span(f"s3://{source.address.bucket}/{key}", start, length)
        for turn in range(1, _TURNS + 1):
            signed = source.access.get(key, entry.identity, asked(start, length)["Range"])
            with self._http.get(signed.url, signed.headers, what) as answer:
                if answer.status in (200, 206):
                    yield range_body(answer, entry, start, length, what)
                    return
                refusal = Refusal.read(answer.status, answer.reason, answer.headers, answer.text(_REFUSAL_LIMIT))
            if turn == _TURNS or not source.access.remedied(refusal, signed):
                raise source.access.refused(refusal, what)

    def close(self) -> None:
        """As ``source.Connection`` has it."""
        self._http.close()
