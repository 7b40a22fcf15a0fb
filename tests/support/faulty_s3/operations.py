"""S3's operations: a request in, an answer out. Nothing here knows of sockets or of faults."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree

from tests.support.faulty_s3.answers import Answer, S3Error, Tree, xml
from tests.support.faulty_s3.checksums import ALGORITHMS, checksum
from tests.support.faulty_s3.objects import Object, Objects, Part

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HEADER = "x-amz-checksum-"
# What the request asks for: (method, has a key, a query parameter that it must have) -> operation. First match counts.
_ROUTES: tuple[tuple[str, bool, str, str], ...] = (
    ("GET", False, "list-type", "ListObjectsV2"),
    ("GET", False, "uploads", "ListMultipartUploads"),
    ("GET", False, "location", "GetBucketLocation"),
    ("HEAD", False, "", "HeadBucket"),
    ("PUT", False, "", "CreateBucket"),
    ("POST", True, "uploads", "CreateMultipartUpload"),
    ("PUT", True, "uploadId", "UploadPart"),
    ("GET", True, "uploadId", "ListParts"),
    ("POST", True, "uploadId", "CompleteMultipartUpload"),
    ("DELETE", True, "uploadId", "AbortMultipartUpload"),
    ("GET", True, "attributes", "GetObjectAttributes"),
    ("GET", True, "", "GetObject"),
    ("HEAD", True, "", "HeadObject"),
    ("PUT", True, "", "PutObject"),
    ("DELETE", True, "", "DeleteObject"),
)


@dataclass(frozen=True)
class Request:
    """``path`` and ``query`` as they came; names of ``headers`` in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def bucket(self) -> str:
        """From the host in virtual style (bucket.localhost), else from the path."""
        host = self.headers.get("host", "").partition(":")[0]
        return host.removesuffix(".localhost") if host.endswith(".localhost") else self._first

    @property
    def key(self) -> str:
        whole = unquote(self.path[1:])
        return whole if self.bucket != self._first else whole.partition("/")[2]

    @property
    def _first(self) -> str:
        return unquote(self.path[1:]).partition("/")[0]

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def operation(self) -> str:
        """S3's name of it, "Unknown" when this server has no such thing."""
        parameters = self.parameters
        for method, has_key, parameter, operation in _ROUTES:
            if (method, has_key) == (self.method, bool(self.key)) and (not parameter or parameter in parameters):
                return operation
        return "Unknown"

    def span(self, size: int) -> range:
        """The bytes of an object of ``size`` that are asked for. Raises InvalidRange."""
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None or match.groups() == ("", ""):
            return range(size)
        first, last = match.groups()
        if not first:
            return range(max(0, size - int(last)), size)
        if int(first) >= size:
            raise S3Error(416, "InvalidRange", "The requested range is not satisfiable")
        return range(int(first), min(int(last) + 1 if last else size, size))


def perform(request: Request, objects: Objects) -> Answer:
    """Do what is asked; raises S3Error."""
    handler = _HANDLERS.get(request.operation)
    if handler is None:
        raise S3Error(501, "NotImplemented", f"this server knows no {request.method} {request.path}?{request.query}")
    return handler(request, objects)


def _list_objects(request: Request, objects: Objects) -> Answer:
    asked = request.parameters
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
    after = unquote(asked.get("continuation-token") or "") or asked.get("start-after", "")
    limit = int(asked.get("max-keys", 1000))
    encode = (lambda text: quote(text, safe="/")) if asked.get("encoding-type") == "url" else str
    listed: list[tuple[str, Tree]] = []
    last, truncated = after, False
    for key in objects.keys(request.bucket):
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        shown = prefix + head + found if found else key
        if not key.startswith(prefix) or shown <= last:
            continue
        if len(listed) >= limit:
            truncated = True
            break
        last = shown
        if found:
            listed.append(("CommonPrefixes", [("Prefix", encode(shown))]))
        else:
            listed.append(("Contents", _entry(objects.get(request.bucket, key), encode(key))))
    tree: list[tuple[str, Tree]] = [("Name", request.bucket), ("Prefix", encode(prefix)), ("MaxKeys", limit)]
    tree += [("Delimiter", encode(delimiter))] if delimiter else []
    tree += [("EncodingType", "url")] if "encoding-type" in asked else []
    tree += [("KeyCount", len(listed)), ("IsTruncated", "true" if truncated else "false")]
    tree += [("NextContinuationToken", quote(last, safe=""))] if truncated else []
    return Answer(body=xml("ListBucketResult", tree + listed))


def _entry(item: Object, name: str) -> list[tuple[str, Tree]]:
    modified = datetime.fromtimestamp(item.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    tree: list[tuple[str, Tree]] = [("Key", name), ("LastModified", modified), ("ETag", f'"{item.etag}"')]
    tree += [("ChecksumAlgorithm", algorithm.upper()) for algorithm in item.checksums]
    tree += [("ChecksumType", item.kind)] if item.checksums else []
    return [*tree, ("Size", item.size), ("StorageClass", "STANDARD")]


def _read(request: Request, objects: Objects) -> Answer:
    """GetObject and HeadObject."""
    item, file = objects.open(request.bucket, request.key)
    try:
        return _reading(request, item, file)
    except S3Error:
        file.close()
        raise


def _reading(request: Request, item: Object, file: BinaryIO) -> Answer:
    if request.headers.get("if-match", item.etag).strip('"') != item.etag:
        raise S3Error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    span = request.span(item.size)
    headers = {
        "Content-Type": "binary/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": f'"{item.etag}"',
        "Last-Modified": formatdate(item.modified, usegmt=True),
    }
    whole = len(span) == item.size
    # A range has no checksum of its own, and S3 does not send the whole object's with it.
    if whole and request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= _checksum_headers(item)
    if "range" in request.headers and len(span):
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{item.size}"
        return Answer(206, headers, file=file, start=span.start, length=len(span))
    return Answer(200, headers, file=file, start=span.start, length=len(span))


def _checksum_headers(item: Object) -> dict[str, str]:
    values = {_HEADER + algorithm: value for algorithm, value in item.checksums.items()}
    return values | ({"x-amz-checksum-type": item.kind} if values else {})


def _attributes(request: Request, objects: Objects) -> Answer:
    item = objects.get(request.bucket, request.key)
    tree: list[tuple[str, Tree]] = [("ETag", item.etag), ("ObjectSize", item.size)]
    if item.checksums:
        tree.append(("Checksum", [*_checksum_tree(item.checksums), ("ChecksumType", item.kind)]))
    return Answer(body=xml("GetObjectAttributesResponse", tree))


def _checksum_tree(values: Mapping[str, str]) -> list[tuple[str, Tree]]:
    return [(f"Checksum{algorithm.upper()}", value) for algorithm, value in values.items()]


def _put(request: Request, objects: Objects) -> Answer:
    if "x-amz-copy-source" in request.headers:
        raise S3Error(501, "NotImplemented", "this server does not copy")
    item = objects.put(request.bucket, request.key, request.body, _verified(request))
    return Answer(headers={"ETag": f'"{item.etag}"', **_checksum_headers(item)})


def _verified(request: Request) -> dict[str, str]:
    """The checksums that came with the body; raises BadDigest when one is wrong."""
    values = {}
    for algorithm in ALGORITHMS:
        given = request.headers.get(_HEADER + algorithm)
        if given is not None:
            values[algorithm] = checksum(algorithm, request.body)
            if values[algorithm] != given:
                raise S3Error(
                    400, "BadDigest", f"The {algorithm.upper()} you specified did not match the calculated one."
                )
    return values


def _delete(request: Request, objects: Objects) -> Answer:
    objects.delete(request.bucket, request.key)
    return Answer(204)


def _create_bucket(request: Request, objects: Objects) -> Answer:
    (objects.directory / request.bucket).mkdir(exist_ok=True)
    return Answer()


def _head_bucket(request: Request, objects: Objects) -> Answer:
    objects.bucket(request.bucket)
    return Answer()


def _location(request: Request, objects: Objects) -> Answer:
    objects.bucket(request.bucket)
    return Answer(body=xml("LocationConstraint", ()))


def _create_upload(request: Request, objects: Objects) -> Answer:
    algorithm = request.headers.get("x-amz-checksum-algorithm", "crc64nvme").lower()
    kind = request.headers.get("x-amz-checksum-type") or ("FULL_OBJECT" if algorithm == "crc64nvme" else "COMPOSITE")
    upload = objects.create_upload(request.bucket, request.key, algorithm, kind)
    tree = [("Bucket", request.bucket), ("Key", request.key), ("UploadId", upload.identity)]
    return Answer(
        headers={"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": kind},
        body=xml("InitiateMultipartUploadResult", tree),
    )


def _put_part(request: Request, objects: Objects) -> Answer:
    upload = objects.upload(request.parameters["uploadId"])
    values = _verified(request) or {upload.algorithm: checksum(upload.algorithm, request.body)}
    part = objects.put_part(upload, int(request.parameters["partNumber"]), request.body, values)
    headers = {_HEADER + algorithm: value for algorithm, value in values.items()}
    return Answer(headers={"ETag": f'"{part.etag}"', **headers})


def _list_parts(request: Request, objects: Objects) -> Answer:
    asked = request.parameters
    upload = objects.upload(asked["uploadId"])
    limit, after = int(asked.get("max-parts", 1000)), int(asked.get("part-number-marker", 0))
    numbers = [number for number in sorted(upload.parts) if number > after]
    tree: list[tuple[str, Tree]] = [("Bucket", upload.bucket), ("Key", upload.key), ("UploadId", upload.identity)]
    tree += [("ChecksumAlgorithm", upload.algorithm.upper()), ("ChecksumType", upload.kind)]
    tree += [("IsTruncated", "true" if len(numbers) > limit else "false")]
    tree += [("NextPartNumberMarker", numbers[limit - 1])] if len(numbers) > limit else []
    tree += [("Part", _part(number, upload.parts[number])) for number in numbers[:limit]]
    return Answer(body=xml("ListPartsResult", tree))


def _part(number: int, part: Part) -> list[tuple[str, Tree]]:
    return [("PartNumber", number), ("ETag", f'"{part.etag}"'), ("Size", part.size), *_checksum_tree(part.checksums)]


def _list_uploads(request: Request, objects: Objects) -> Answer:
    prefix = request.parameters.get("prefix", "")
    tree: list[tuple[str, Tree]] = [("Bucket", request.bucket), ("IsTruncated", "false")]
    for upload in objects.uploads(request.bucket):
        if upload.key.startswith(prefix):
            described: list[tuple[str, Tree]] = [("Key", upload.key), ("UploadId", upload.identity)]
            described += [("ChecksumAlgorithm", upload.algorithm.upper()), ("ChecksumType", upload.kind)]
            tree.append(("Upload", described))
    return Answer(body=xml("ListMultipartUploadsResult", tree))


def _complete_upload(request: Request, objects: Objects) -> Answer:
    upload = objects.upload(request.parameters["uploadId"])
    root = ElementTree.fromstring(request.body)
    numbers = []
    for element in root.iterfind("{*}Part"):
        number = int(element.findtext("{*}PartNumber") or 0)
        part = upload.parts.get(number)
        if part is None or part.etag != (element.findtext("{*}ETag") or "").strip('"'):
            raise S3Error(400, "InvalidPart", f"Part {number} could not be found, or its ETag is another.")
        numbers.append(number)
    if not numbers or numbers != sorted(set(numbers)):
        raise S3Error(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
    whole = _joined_checksum(upload.algorithm, upload.kind, [upload.parts[number] for number in numbers])
    declared = request.headers.get(_HEADER + upload.algorithm)
    if declared is not None and declared != whole:
        raise S3Error(
            400, "BadDigest", f"The {upload.algorithm.upper()} you specified did not match the calculated one."
        )
    item = objects.join(upload, numbers, {upload.algorithm: whole})
    tree: list[tuple[str, Tree]] = [("Bucket", upload.bucket), ("Key", upload.key), ("ETag", f'"{item.etag}"')]
    return Answer(
        body=xml(
            "CompleteMultipartUploadResult", [*tree, *_checksum_tree(item.checksums), ("ChecksumType", upload.kind)]
        )
    )


def _joined_checksum(algorithm: str, kind: str, parts: Sequence[Part]) -> str:
    """Of the whole object, or S3's composite: the checksum of the parts' checksums, with their number."""
    if kind == "FULL_OBJECT":
        return checksum(algorithm, b"".join(part.path.read_bytes() for part in parts))
    digests = b"".join(base64.b64decode(part.checksums[algorithm]) for part in parts)
    return f"{checksum(algorithm, digests)}-{len(parts)}"


def _abort_upload(request: Request, objects: Objects) -> Answer:
    objects.abort(objects.upload(request.parameters["uploadId"]))
    return Answer(204)


_HANDLERS = {
    "ListObjectsV2": _list_objects,
    "ListMultipartUploads": _list_uploads,
    "GetBucketLocation": _location,
    "HeadBucket": _head_bucket,
    "CreateBucket": _create_bucket,
    "CreateMultipartUpload": _create_upload,
    "UploadPart": _put_part,
    "ListParts": _list_parts,
    "CompleteMultipartUpload": _complete_upload,
    "AbortMultipartUpload": _abort_upload,
    "GetObjectAttributes": _attributes,
    "GetObject": _read,
    "HeadObject": _read,
    "PutObject": _put,
    "DeleteObject": _delete,
}
