"""Write files to S3 from front to back, in parts, without a copy on the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from types import TracebackType

from awscrt.checksums import crc64nvme

from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.sources.s3 import S3Source
from bloomery.checkpoints.splitting.output import Writer
from bloomery.checkpoints.uploading.s3_target import Part, S3Target, Unfinished, part_bytes
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

_PART_BYTES = 8 << 20  # one is held per open file, and a file is open for each rank
_CONNECTIONS = 8


class S3Output:
    """A prefix that becomes a checkpoint with its MANIFEST.json, which comes last.

    Objects of S3 are whole or absent. What a run that fails has written is removed again, and its parts dropped.
    """

    def __init__(self, uri: str) -> None:
        self._target = S3Target(uri, _CONNECTIONS)
        self._pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="upload")
        self._room = threading.BoundedSemaphore(2 * _CONNECTIONS)  # parts that are held and not sent
        self._open: dict[str, _S3Writer] = {}
        self._written: list[str] = []
        self._published = False

    def __enter__(self) -> S3Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._target.cancelled.set()
        self._pool.shutdown(cancel_futures=True)
        if error is not None and not self._published:
            self._undo()
        self._target.close()

    def _undo(self) -> None:
        """As far as S3 lets us: what stays is said, and the error that led here goes on."""
        try:
            for name, writer in self._open.items():
                self._target.abort(name, writer.upload)
            for name in self._written:
                self._target.delete(name)
        except CheckpointError as error:
            log.warning("%s: not everything that was written could be removed again: %s", self._target.uri, error)

    def existing(self) -> Mapping[str, Listed] | None:
        """As ``Output``."""
        there = self._target.objects()
        if manifest.NAME not in there:
            return None
        found = manifest.read(self.read(manifest.NAME), self._target.uri + manifest.NAME)
        for name, entry in found.items():
            if there.get(name) != entry.size:
                raise CheckpointError(
                    f"{self._target.uri}{name} is not as {manifest.NAME} says: remove what is there, and start again"
                )
        return found

    def read(self, name: str) -> bytes:
        """As ``Output``."""
        source = S3Source(self._target.uri)
        entry = next(entry for entry in source.entries() if entry.name == name)
        with closing(source.connect()) as connection:
            return read_bytes(connection, entry)

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """As ``Output``. Objects that a run which was killed has left are written over; any others are refused."""
        others = sorted(self._target.objects().keys() - sizes.keys())
        if others:
            raise CheckpointError(
                f"{self._target.uri} holds {len(others)} objects that are no part of this checkpoint ({others[0]}): "
                "remove them, or name another prefix"
            )

    def create(self, name: str, size: int) -> Writer:
        """As ``Output``."""
        if size <= part_bytes(size, _PART_BYTES):
            return _Small(self, name)
        writer = _S3Writer(self, name, size, self._target.begin(name))
        self._open[name] = writer
        return writer

    def publish(self, files: Mapping[str, Listed]) -> None:
        """As ``Output``."""
        self._target.put(manifest.NAME, manifest.written(files))
        self._published = True

    def put(self, name: str, data: bytes) -> None:
        """A small object."""
        self._target.put(name, data)
        self._written.append(name)

    def send(self, writer: _S3Writer, number: int, data: bytes) -> Future[Part]:
        """One part, as soon as there is room for it."""
        self._room.acquire()
        future = self._pool.submit(self._target.send, writer.name, writer.upload, number, data)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def complete(self, writer: _S3Writer, parts: list[Part], size: int, crc: int) -> None:
        """All parts are there."""
        self._target.complete(writer.name, writer.upload, parts, size, crc)
        self._written.append(writer.name)
        del self._open[writer.name]


class _Small:
    def __init__(self, output: S3Output, name: str) -> None:
        self._output, self._name, self._data = output, name, bytearray()

    def write(self, data: memoryview) -> None:
        self._data += data

    def close(self) -> None:
        self._output.put(self._name, bytes(self._data))


class _S3Writer:
    def __init__(self, output: S3Output, name: str, size: int, upload: Unfinished) -> None:
        self.name, self.upload = name, upload
        self._output, self._step = output, part_bytes(size, _PART_BYTES)
        self._held = bytearray()
        self._size = self._crc = 0
        self._sent: list[Future[Part]] = []

    def write(self, data: memoryview) -> None:
        left = data.cast("B")
        while left:
            some = left[: self._step - len(self._held)]
            self._held += some
            left = left[len(some) :]
            if len(self._held) == self._step:
                self._send()

    def close(self) -> None:
        if self._held:
            self._send()
        self._output.complete(self, [future.result() for future in self._sent], self._size, self._crc)

    def _send(self) -> None:
        if self._sent and self._sent[0].done():
            self._sent[0].result()  # an error now, not after the whole file
        self._size, self._crc = self._size + len(self._held), crc64nvme(self._held, self._crc)
        self._sent.append(self._output.send(self, len(self._sent) + 1, bytes(self._held)))
        self._held.clear()
