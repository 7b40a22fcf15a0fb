"""``bloomery upload``: a directory to a prefix in S3; only what is not there, and only what S3 confirms.

Large files go up in parts, several at once, each with its CRC64NVME; S3 is told the CRC64NVME of the whole, refuses
what has another, and keeps it, so that a fetch can compare. An upload that was interrupted leaves its parts in S3, and
the next one sends only those that are missing. MANIFEST.json comes last: where it is, everything else is.

boto3's own transfers (s3transfer 0.19) do none of the second half: they forget the parts, and send what is there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from awscrt.checksums import combine_crc64nvme, crc64nvme

from bloomery.checkpoints.progress import Progress
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.sources.s3 import S3Source
from bloomery.checkpoints.uploading.s3_target import PART_BYTES, CancelledError, Part, S3Target, Unfinished, part_bytes
from bloomery.checkpoints.uploading.upload_files import LocalFile, local_files, local_manifest
from bloomery.errors import CheckpointError, ConfigurationError

log = logging.getLogger(__name__)

CONNECTIONS = 8
PHASE = "uploading checkpoint"


@dataclass(frozen=True)
class Step:
    """What becomes of one file. ``there``: S3 has it, and it is equal; ``unfinished``: to be gone on with."""

    file: LocalFile
    there: bool
    unfinished: Unfinished | None


@dataclass
class Report:
    """``steps``: what was to be done. ``found``: bytes of parts that were in S3 already; ``unconfirmed``: files of
    which the server keeps no checksum; ``others``: objects below the prefix that are no files of the directory."""

    uri: str
    steps: Sequence[Step]
    others: Sequence[str]
    sent: int = 0
    found: int = 0
    unconfirmed: list[str] = field(default_factory=list)
    seconds: float = 0.0


def upload(
    directory: str | Path,
    uri: str,
    *,
    dry_run: bool = False,
    resume: bool = True,
    connections: int = CONNECTIONS,
    part: int = PART_BYTES,
    seen: Callable[[int, int], object] | None = None,
) -> Report:
    """Make ``uri`` (s3://bucket/prefix) hold the files of ``directory``, and a MANIFEST.json of them.

    dry_run: only say what would be done. resume: go on with parts that an interrupted upload has left, and leave them
    when this one is interrupted; otherwise they are dropped. part: bytes.
    seen: hears of bytes that are done, and of all.
    Raises CheckpointError; ConfigurationError for an address that is none.
    """
    if not uri.startswith("s3://"):
        raise ConfigurationError(f"{uri} is no place to upload to: write s3://bucket/prefix")
    began, directory = time.monotonic(), Path(directory).expanduser()
    files = local_files(directory)
    with closing(S3Target(uri, connections)) as target:
        uploading = _Uploading(target, files, local_manifest(directory), connections, part)
        report = uploading.plan(resume)
        if not dry_run:
            uploading.run(report, resume, seen)
    report.seconds = time.monotonic() - began
    return report


@dataclass
class _InParts:
    """A file on its way. ``have``: parts that S3 had before."""

    file: LocalFile
    upload: Unfinished
    descriptor: int
    have: Mapping[int, Part]
    left: int
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class _Done:
    """What a task has done. ``sending``: whose part it was."""

    sent: int = 0
    found: int = 0
    sending: _InParts | None = None


class _Uploading:
    def __init__(
        self, target: S3Target, files: Sequence[LocalFile], local: Mapping[str, Listed], connections: int, part: int
    ) -> None:
        self._target, self._files, self._part, self._connections = target, files, part, connections
        self._local = local
        self._remote: Mapping[str, Listed] = {}
        self._has_manifest = False
        self._crcs: dict[str, int] = {}
        self._begun: dict[str, _InParts] = {}
        self._unconfirmed: list[str] = []

    def plan(self, resume: bool) -> Report:
        """Compare with what is in S3."""
        there = self._target.objects()
        self._has_manifest = there.pop(manifest.NAME, None) is not None
        if self._has_manifest:
            self._remote = _remote_manifest(self._target.uri)
        unfinished = self._unfinished()
        steps = []
        for file in self._files:
            equal = there.get(file.name) == file.size and self._is_equal(file)
            left = unfinished.get(file.name, []) if file.size > self._part_bytes(file) else []
            steps.append(Step(file, equal, left[-1] if left and not equal and resume else None))
        names = {file.name for file in self._files}
        return Report(self._target.uri, steps, sorted(name for name in there if name not in names))

    def _unfinished(self) -> Mapping[str, Sequence[Unfinished]]:
        """Not every server can list them, and not every role may."""
        try:
            return self._target.unfinished()
        except CancelledError:
            raise
        except CheckpointError as error:
            log.warning("unfinished uploads are not known, so none is gone on with: %s", error)
            return {}

    def run(self, report: Report, resume: bool, seen: Callable[[int, int], object] | None) -> None:
        """Do what was planned."""
        todo = [step for step in report.steps if not step.there]
        progress = Progress(PHASE, sum(step.file.size for step in todo), what=report.uri, seen=seen)
        if not resume:
            self._drop(self._unfinished())
        if todo and self._has_manifest:
            self._target.put(manifest.NAME, manifest.written({}))  # it vouches for what is about to be replaced
        with self._pools() as (pool, hashing):
            shas = {
                file.name: hashing.submit(file.sha256, self._target.cancelled)
                for file in self._files
                if not self._known_sha(file)
            }
            try:
                self._send(todo, pool, report, progress)
                files = {file.name: self._listed(file, shas) for file in self._files}
                if todo or files != self._remote:
                    self._target.put(manifest.NAME, manifest.written(files))
            except BaseException:
                self._target.cancelled.set()
                pool.shutdown(cancel_futures=True)
                self._leave(resume)
                raise
        report.unconfirmed += sorted(self._unconfirmed)
        progress.finish()

    @contextmanager
    def _pools(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        with (
            ThreadPoolExecutor(self._connections, thread_name_prefix="upload") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="sha256") as hashing,
        ):
            try:
                yield pool, hashing
            finally:
                hashing.shutdown(cancel_futures=True)
                pool.shutdown(cancel_futures=True)
                for sending in self._begun.values():
                    os.close(sending.descriptor)

    def _send(self, todo: Sequence[Step], pool: ThreadPoolExecutor, report: Report, progress: Progress) -> None:
        running: set[Future[_Done]] = set()

        def collect() -> None:
            ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            running.difference_update(ended)
            for future in ended:
                done = future.result()
                report.sent += done.sent
                report.found += done.found
                progress.add(done.sent + done.found)
                if done.sending is not None:
                    done.sending.left -= 1
                    if not done.sending.left:
                        running.add(pool.submit(self._complete, done.sending))
            progress.tell()

        for task in self._tasks(todo):
            while len(running) >= 2 * self._connections:
                collect()
            running.add(pool.submit(task))
        while running:
            collect()

    def _tasks(self, todo: Sequence[Step]) -> Iterator[Callable[[], _Done]]:
        for step in todo:
            file, size = step.file, self._part_bytes(step.file)
            if file.size <= size:
                yield partial(self._put, file)
                continue
            upload = step.unfinished or self._target.begin(file.name)
            have = self._target.parts(file.name, upload) if step.unfinished else {}
            count = -(-file.size // size)
            sending = _InParts(file, upload, os.open(file.path, os.O_RDONLY | os.O_CLOEXEC), have, count)
            self._begun[file.name] = sending
            for number in range(1, count + 1):
                yield partial(self._send_part, sending, number, (number - 1) * size, size)

    def _put(self, file: LocalFile) -> _Done:
        data = b"".join(file.chunks())
        file.check_unchanged()
        self._note(file, crc64nvme(data))
        self._confirm(file, self._target.put(file.name, data))
        return _Done(len(data))

    def _send_part(self, sending: _InParts, number: int, start: int, length: int) -> _Done:
        name = sending.file.name
        data = os.pread(sending.descriptor, length, start)
        have = sending.have.get(number)
        if have is not None and (have.size, have.crc64nvme) == (len(data), crc64nvme(data)):
            sending.parts.append(have)
            return _Done(found=len(data), sending=sending)
        sending.parts.append(self._target.send(name, sending.upload, number, data))
        return _Done(len(data), sending=sending)

    def _complete(self, sending: _InParts) -> _Done:
        file, crc, size = sending.file, 0, 0
        for part in sorted(sending.parts, key=lambda part: part.number):
            crc, size = combine_crc64nvme(crc, part.crc64nvme or 0, part.size), size + part.size
        file.check_unchanged()
        self._note(file, crc)
        self._confirm(file, self._target.complete(file.name, sending.upload, sending.parts, size, crc))
        os.close(self._begun.pop(file.name).descriptor)
        return _Done()

    def _note(self, file: LocalFile, crc: int) -> None:
        """Raises CheckpointError when the directory's own manifest says otherwise."""
        self._crcs[file.name] = crc
        listed = self._local.get(file.name)
        if listed is not None and (listed.size, listed.crc64nvme) != (file.size, crc):
            raise CheckpointError(
                f"{file.path} is not what {manifest.NAME} beside it says: it is damaged; if you have changed it on "
                f"purpose, remove {manifest.NAME}"
            )

    def _confirm(self, file: LocalFile, told: int | None) -> None:
        """Ask once more when the answer brought no checksum."""
        if told is None:
            remote = self._target.head(file.name)
            if remote is None or remote.size != file.size or remote.crc64nvme not in (None, self._crcs[file.name]):
                raise CheckpointError(f"{self._target.uri}{file.name} is not what was sent: send it again")
            if remote.crc64nvme is None:
                self._unconfirmed.append(file.name)

    def _is_equal(self, file: LocalFile) -> bool:
        remote = self._target.head(file.name)
        if remote is None or remote.size != file.size or remote.crc64nvme is None:
            return False
        self._note(file, file.crc64nvme())
        return self._crcs[file.name] == remote.crc64nvme

    def _part_bytes(self, file: LocalFile) -> int:
        return part_bytes(file.size, self._part)

    def _known_sha(self, file: LocalFile) -> str | None:
        """From a manifest that speaks of the same content: of the directory's own nothing else is accepted anyway."""
        local, remote = self._local.get(file.name), self._remote.get(file.name)
        if local and local.size == file.size and local.sha256:
            return local.sha256
        known = remote and (remote.size, remote.crc64nvme) == (file.size, self._crcs.get(file.name))
        return remote.sha256 if remote and known else None

    def _listed(self, file: LocalFile, shas: Mapping[str, Future[str]]) -> Listed:
        sha = shas[file.name].result() if file.name in shas else self._known_sha(file)
        file.check_unchanged()
        return Listed(file.size, self._crcs[file.name], sha)

    def _leave(self, resume: bool) -> None:
        if not resume:
            self._drop({name: [sending.upload] for name, sending in self._begun.items()})
        elif self._begun:
            log.warning(
                "%s: parts of %s stay there for the same command to go on with; with --no-resume it would drop them",
                self._target.uri, ", ".join(sorted(self._begun)),
            )  # fmt: skip

    def _drop(self, unfinished: Mapping[str, Sequence[Unfinished]]) -> None:
        names = {file.name for file in self._files}
        for name in names & unfinished.keys():
            for upload in unfinished[name]:
                self._target.abort(name, upload)


def _remote_manifest(uri: str) -> Mapping[str, Listed]:
    """What the prefix says of itself; nothing when that cannot be read: it is written anew."""
    source = S3Source(uri)
    try:
        entry = next(entry for entry in source.entries() if entry.name == manifest.NAME)
        with closing(source.connect()) as connection:
            return manifest.read(read_bytes(connection, entry), uri + manifest.NAME)
    except CheckpointError as error:
        log.info("%s%s is not used: %s", uri, manifest.NAME, error)
        return {}
