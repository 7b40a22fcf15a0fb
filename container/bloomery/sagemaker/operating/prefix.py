"""Delete what lies below a prefix of S3: a checkpoint, with what an upload that broke off has left of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bloomery.checkpoints.sources.s3 import Address
from bloomery.errors import AccessError, CallError, RemovalError
from bloomery.sagemaker.operating.absence import is_absence
from bloomery.sagemaker.operating.belongings import model_data, users
from bloomery.sagemaker.request import Request
from bloomery.sagemaker.session import Session

_BATCH = 1000  # keys that DeleteObjects takes
_NAMED = 3  # refusals that a message shows
# The key under which ``bloomery package --upload`` and ``bloomery deploy`` put an archive: it holds its checksum.
_UPLOADED = re.compile(r"s3://[^/]+/(?:.+/)?[^/]*-[0-9a-f]{16}/[^/]+\.tar\.gz")


@dataclass(frozen=True)
class Prefix:
    """What lies there. ``versioned``: S3 keeps what is deleted, until a rule of the bucket or somebody ends that.
    ``unfinished``: uploads in parts that were never completed; they cost, and no listing shows them.
    """

    bucket: str
    prefix: str
    keys: tuple[str, ...]
    size: int
    versioned: bool
    unfinished: tuple[tuple[str, str], ...] = ()  # key, upload id

    @property
    def uri(self) -> str:
        """As a user writes it."""
        return f"s3://{self.bucket}/{self.prefix}"

    def requests(self) -> Iterator[Request]:
        """All that remove it."""
        for start in range(0, len(self.keys), _BATCH):
            objects = [{"Key": key} for key in self.keys[start : start + _BATCH]]
            yield Request("s3", "DeleteObjects", {"Bucket": self.bucket, "Delete": {"Objects": objects, "Quiet": True}})
        for key, upload in self.unfinished:
            given = {"Bucket": self.bucket, "Key": key, "UploadId": upload}
            yield Request("s3", "AbortMultipartUpload", given)


def below(session: Session, uri: str) -> Prefix:
    """What lies below ``uri``, or at it when it is one object. An empty answer is none: there may be nothing.

    Raises SageMakerError, and CheckpointError for what is no address.
    """
    address = Address.of(uri) if uri.startswith("s3://") else None
    if address is None or not address.prefix or set(address.prefix) <= {"/", "."}:
        raise RemovalError(
            f"{uri} is not deleted: only what lies below a prefix is, such as s3://bucket/bloom-560m/, never a whole "
            "bucket" + ("" if address else " and nothing outside S3")
        )
    bucket = address.bucket
    try:
        found = _objects(session, bucket, address.folder)
        prefix = address.folder
        if not found and not address.is_folder:
            # An object and a folder may bear the same name: only where there is no folder, it is the object.
            found = [each for each in _objects(session, bucket, address.prefix) if each[0] == address.prefix]
            prefix = address.prefix if found else prefix
        return Prefix(
            bucket=bucket,
            prefix=prefix,
            keys=tuple(key for key, _ in found),
            size=sum(size for _, size in found),
            versioned=_versioned(session, bucket),
            unfinished=tuple(_unfinished(session, bucket, prefix)),
        )
    except CallError as error:
        if is_absence(error):
            raise RemovalError(f"{uri} is not deleted: there is no bucket {bucket!r}") from error
        raise


def check_unused(session: Session, prefix: Prefix, leaving: Collection[str]) -> list[str]:
    """Raise RemovalError when an endpoint that is not in ``leaving`` has a model that names something below ``prefix``,
    or a place that holds it. Gives the endpoints of which that cannot be seen.
    """
    unseen: list[str] = []
    for model, staying in users(session, except_for=leaving).models.items():
        try:
            named = model_data(session, model)
        except AccessError:
            unseen += staying
            continue
        for uri in sorted(named):
            if _meet(uri, prefix.uri):
                raise RemovalError(
                    f"{prefix.uri} is not deleted: endpoint {', '.join(staying)} uses {uri} (model {model}); delete "
                    "that endpoint first, or in the same command"
                )
    return unseen


def delete(session: Session, prefix: Prefix) -> int:
    """Delete it; how many objects. Raises SageMakerError; RemovalError names what is still there."""
    refused: list[dict[str, Any]] = []
    for request in prefix.requests():
        try:
            refused += session.send(request).get("Errors") or ()
        except CallError as error:
            if not is_absence(error):
                raise
    if refused:
        some = "; ".join(f"{each['Key']}: {each.get('Message') or each.get('Code')}" for each in refused[:_NAMED])
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        raise RemovalError(f"{prefix.uri}: {len(refused)} of {len(prefix.keys)} objects are still there: {some}{more}")
    return len(prefix.keys)


def uploaded_archives(session: Session, models: Iterable[str]) -> list[str]:
    """The archives of ``models`` that bloomery has uploaded, by their keys. Raises SageMakerError."""
    found = {uri for model in models for uri in model_data(session, model)}
    return sorted(uri for uri in found if _UPLOADED.fullmatch(uri))


def _meet(one: str, other: str) -> bool:
    one, other = (each.rstrip("/") + "/" for each in (one, other))
    return one.startswith(other) or other.startswith(one)


def _objects(session: Session, bucket: str, prefix: str) -> list[tuple[str, int]]:
    pages = session.pages("s3", "ListObjectsV2", Bucket=bucket, Prefix=prefix)
    return [(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", ())]


def _versioned(session: Session, bucket: str) -> bool:
    try:
        return "Status" in session.call("s3", "GetBucketVersioning", Bucket=bucket)
    except AccessError:  # only a note depends on it
        return False


def _unfinished(session: Session, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    try:
        for page in session.pages("s3", "ListMultipartUploads", Bucket=bucket, Prefix=prefix):
            for each in page.get("Uploads") or ():
                if prefix.endswith("/") or each["Key"] == prefix:  # else one that only begins with the same letters
                    yield each["Key"], each["UploadId"]
    except AccessError:  # what can be seen is deleted
        return
