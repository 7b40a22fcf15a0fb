"""From a source to a directory: what is wanted and not there yet, through the engine, checked, under its final names.

list -> choose -> what is there already -> what a killed fetch has left -> transfer -> publish
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bloomery.checkpoints.carrying import carriers
from bloomery.checkpoints.carrying.carriers import Carriers
from bloomery.checkpoints.choice import wanted_files
from bloomery.checkpoints.disk import integrity, journal, publish, room
from bloomery.checkpoints.disk.journal import Journal, Written
from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.disk.publish import Kept, Record
from bloomery.checkpoints.disk.staging import StagedFile, resumable
from bloomery.checkpoints.disk.vouching import Vouched, unvouched, vouched
from bloomery.checkpoints.part import Part
from bloomery.checkpoints.progress import Progress, megabytes
from bloomery.checkpoints.source import ChangedError, Entry, Source, UnreachableError
from bloomery.checkpoints.transfer import POLICY, Transfer
from bloomery.checkpoints.wire.http import Http, HttpConnection
from bloomery.errors import CheckpointError
from bloomery.processes import rank
from bloomery.processes.machine import cores

log = logging.getLogger(__name__)

T = TypeVar("T")
PHASE = "fetching checkpoint"
STAGING = ".fetching"
_WEIGHTS = (".safetensors", ".bin", integrity.INDEX_SUFFIX)
_FILES, _JOURNAL = "files", "journal"
_WORTH_PROCESSES = 1 << 30  # bytes: each process takes 0.2 s of a processor to start
_HEADERS_FIRST = 256  # files whose first part comes before the rest of any, all of them open meanwhile


@dataclass(frozen=True)
class Delivery:
    """What was done. ``fetched``: how many of the ``files`` were not there; ``came``: bytes that were read for them.
    ``evidence``: how many of those agree with a checksum of that kind; under "" those whose source has none.
    """

    files: int
    total: int
    fetched: int
    came: int
    seconds: float
    evidence: Mapping[str, int]
    licence: str | None


def deliver(
    source: Source,
    target: Path,
    options: FetchOptions,
    allow_patterns: Sequence[str] | None = None,
    is_model: bool = False,
    seen: Callable[[int, int], object] | None = None,
) -> Delivery:
    """Make ``target`` hold the wanted files of ``source`` as they are now. The caller holds the lock of ``target``.

    Raises CheckpointError, with nothing new under the final names. ``is_model``: whether config.json must be
    among them. ``seen`` is told of progress, from any thread.
    """
    try:
        try:
            return _Delivery(source, target, options, allow_patterns, is_model, seen).run()
        except ChangedError as error:
            log.warning("%s; listing %s once more", error, source.uri)
            return _Delivery(source, target, options, allow_patterns, is_model, seen).run()
    except OSError as error:
        raise CheckpointError(
            f"{source.uri} could not be written to {error.filename or target} ({error.strerror or error}): free some "
            "space, or name a directory on a larger volume (TMPDIR; on SageMaker: VolumeSizeInGB)."
        ) from error
    finally:
        _clean(target / STAGING, keep=options.resume)


class _Delivery:
    """One attempt, with the source as it is now."""

    def __init__(
        self,
        source: Source,
        target: Path,
        options: FetchOptions,
        allow_patterns: Sequence[str] | None,
        is_model: bool,
        seen: Callable[[int, int], object] | None,
    ) -> None:
        self._source, self._target, self._options, self._seen = source, target, options, seen
        self._uri = source.uri.rstrip("/")  # s3://b/m and s3://b/m/ are one
        self._patterns, self._is_model = list(allow_patterns or ()), is_model
        self._staging = target / STAGING
        self._record = Record.read(target)

    def run(self) -> Delivery:
        rank.current.report(PHASE)
        try:
            entries = {entry.name: entry for entry in self._source.entries()}
        except UnreachableError as error:
            return self._former(error)
        wanted = self._wanted(entries)
        there = self._there(wanted)
        missing = [entry for entry in wanted if entry.name not in there]
        total = sum(entry.size for entry in wanted)
        if not missing and not self._outdated(entries, wanted):
            log.info("%s: already in %s", self._source.uri, self._target)
            return Delivery(len(wanted), total, 0, 0, 0.0, {}, None)
        licence = self._source.licence
        log.info(
            "%s: %d files, %s%s",
            *(self._source.uri, len(missing), megabytes(sum(entry.size for entry in missing))),
            f"; licence: {licence}" if licence else "",
        )
        known = vouched(self._source, missing) if self._options.verify else unvouched(missing)
        adopted = self._adopted(missing, known)
        unread = [entry for entry in missing if entry.name not in adopted]
        progress, staged = self._transfer(unread, known, frozenset(entries))
        record = self._recorded(entries, wanted, staged, adopted)
        publish.publish(self._target, record, staged)
        publish.remove(self._target, self._outdated(entries, wanted))
        self._tell_of_others(record, wanted)
        _clean(self._staging, keep=False)
        progress.finish()
        kinds = Counter(integrity.evidence(entry) if self._options.verify else "" for entry in known().values())
        return Delivery(len(wanted), total, len(missing), progress.came, progress.seconds, kinds, licence)

    def _wanted(self, entries: Mapping[str, Entry]) -> list[Entry]:
        if self._is_model:
            _require_model(self._source.uri, entries)
        names = wanted_files(entries, self._patterns)
        if not names:
            told = f"none matches {self._patterns}" if self._patterns else "none of them is worth fetching"
            raise CheckpointError(f"{self._source.uri} holds {len(entries)} files, and {told}.")
        return [entries[name] for name in names]

    def _there(self, wanted: Sequence[Entry]) -> set[str]:
        """The names of those that ``target`` has already."""
        verify = self._options.verify
        held = self._each(wanted, lambda entry: self._record.holds(entry, self._target, verify=verify))
        return {entry.name for entry, holds in zip(wanted, held, strict=True) if holds}

    def _each(self, entries: Sequence[Entry], look: Callable[[Entry], T]) -> list[T]:
        """What ``look`` finds of each, which may read what is on the disk of it."""
        progress = Progress("checking what is there", sum(entry.size for entry in entries), what=self._source.uri)
        found = []
        with ThreadPoolExecutor(cores(), "check") as pool:
            for entry, result in zip(entries, pool.map(look, entries), strict=True):
                found.append(result)
                progress.add(entry.size)
        return found

    def _outdated(self, entries: Mapping[str, Entry], wanted: Sequence[Entry]) -> list[str]:
        """Files of a former fetch that the source has no more, or in another version that nobody wants now."""
        names = {entry.name for entry in wanted}
        return [
            name
            for name, kept in self._record.files.items()
            if kept.uri == self._uri and name not in names
            if name not in entries or entries[name].identity != kept.identity
        ]

    def _adopted(self, missing: Sequence[Entry], known: Vouched) -> dict[str, Kept]:
        """Files that somebody else has put there, and that agree with the source's checksum."""

        def kept(entry: Entry) -> Kept | None:
            path = self._target / entry.name
            if not path.is_file() or path.stat().st_size != entry.size:
                return None
            expected = known()[entry.name]
            if not integrity.evidence(expected):
                return None
            crc = integrity.crc_of_file(path)
            with path.open("rb", buffering=0) as file:
                differs = integrity.mismatch(expected, file.fileno(), crc)
            return None if differs else publish.kept_of(self._uri, entry, path, crc)

        found = zip(missing, self._each(missing, kept), strict=True)
        return {entry.name: row for entry, row in found if row is not None}

    def _recorded(
        self,
        entries: Mapping[str, Entry],
        wanted: Sequence[Entry],
        staged: Iterable[StagedFile],
        adopted: Mapping[str, Kept],
    ) -> Record:
        """The record once ``staged`` is published."""
        outdated = set(self._outdated(entries, wanted))
        files = {name: kept for name, kept in self._record.files.items() if name not in outdated} | {**adopted}
        files |= {file.entry.name: publish.kept_of(self._uri, file.entry, file.path, file.crc64nvme) for file in staged}
        return Record(self._uri, self._patterns, publish.boot_id(), True, files)

    def _tell_of_others(self, record: Record, wanted: Sequence[Entry]) -> None:
        """Weights of two models in one directory: which of them a reader takes, neither of them knows."""
        names = {entry.name for entry in wanted}
        others = [name for name, kept in record.files.items() if kept.uri != self._uri and name not in names]
        weights = sorted(name for name in others if name.endswith(_WEIGHTS))
        if weights and any(name.endswith(_WEIGHTS) for name in names):
            log.warning(
                "%s also holds weights of %s (%s), and a reader may take either: fetch into a directory of its own",
                *(self._target, record.files[weights[0]].uri, ", ".join(weights[:3])),
            )

    def _former(self, error: UnreachableError) -> Delivery:
        """What an earlier fetch has brought, where the source cannot be asked."""
        record = self._record
        files = {name: kept for name, kept in record.files.items() if kept.uri == self._uri}
        asked = (record.complete, record.uri, record.patterns) == (True, self._uri, self._patterns)
        if not asked or any(not (self._target / name).is_file() for name in files):
            raise error
        log.warning("%s; using what was fetched earlier into %s", error, self._target)
        return Delivery(len(files), sum(kept.size for kept in files.values()), 0, 0, 0.0, {}, None)

    def _transfer(
        self, missing: Sequence[Entry], known: Vouched, names: frozenset[str]
    ) -> tuple[Progress, list[StagedFile]]:
        """Read ``missing`` into staged files, whole and checked."""
        written = self._resumed(missing)
        total = sum(entry.size for entry in missing)
        done = sum(part.length for parts in written for part in parts)
        if done:
            log.info("%s: going on from %s of an earlier fetch", self._source.uri, megabytes(done))
        # What was under way when a fetch was killed takes its room already, and is written over.
        room.check_room(
            self._source.uri, self._target, sum(room.to_come(self._path(entry), entry.size) for entry in missing)
        )
        progress = Progress(PHASE, total, what=self._source.uri, done=done, seen=self._seen)
        files: list[StagedFile] = []
        with ExitStack() as stack:
            notes = stack.enter_context(closing(Journal(self._staging / _JOURNAL)))
            stack.callback(_close, files)  # when nobody writes any more
            policy = replace(POLICY, patience=self._options.patience)
            http = self._http(stack, total - done)
            transfer = stack.enter_context(
                Transfer(self._source, self._options.connections, progress.add, policy, http)
            )

            def again(parts: Iterable[Part]) -> None:
                parts = list(parts)
                progress.expect(sum(part.length for part in parts))
                transfer.put(parts, first=True)

            for entry, parts in zip(missing, written, strict=True):
                file = StagedFile(
                    *(entry, self._path(entry), self._where(entry), parts, notes),
                    *(again, self._check_index(names), known),
                    verify=self._options.verify,
                )
                files.append(file)
            unread = [file.missing(self._options.part_bytes) for file in files]
            transfer.put(_ordered(unread))
            complete = [file for file, some in zip(files, unread, strict=True) if not some]
            with ThreadPoolExecutor(cores(), "check") as pool:
                for _ in pool.map(StagedFile.check, complete):
                    progress.tell()
            transfer.wait(progress.tell)
        return progress, files

    def _http(self, stack: ExitStack, size: int) -> Http:
        """What makes connections: those that other processes read, where that is worth it. They end with ``stack``."""
        processes = min(self._options.processes, self._options.connections)
        if processes < 2 or size < _WORTH_PROCESSES or not carriers.IS_POSSIBLE:
            return HttpConnection
        return stack.enter_context(Carriers(processes, self._options.connections)).http

    def _resumed(self, missing: Sequence[Entry]) -> list[list[Written]]:
        """For each file, the parts that an earlier fetch has left and that are intact."""
        if not self._options.resume:
            _clean(self._staging, keep=False)
        self._staging.mkdir(parents=True, exist_ok=True)
        expected = {self._path(entry) for entry in missing}
        for path in (self._staging / _FILES).rglob("*"):
            if path not in expected and not path.is_dir():
                path.unlink()
        claimed = journal.read(self._staging / _JOURNAL)

        def intact(entry: Entry) -> list[Written]:
            claims = claimed.get((entry.name, entry.identity, entry.size), [])
            return resumable(entry, self._path(entry), claims, verify=self._options.verify)

        return self._each(missing, intact)

    def _path(self, entry: Entry) -> Path:
        return self._staging / _FILES / entry.name

    def _where(self, entry: Entry) -> str:
        uri = self._source.uri.rstrip("/")
        return uri if uri.endswith(f"/{entry.name}") else f"{uri}/{entry.name}"

    def _check_index(self, names: frozenset[str]) -> Callable[[int, Entry], None]:
        return lambda file, entry: integrity.check_index(file, entry, names, self._source.uri)


def _require_model(uri: str, names: Iterable[str]) -> None:
    """Raise a CheckpointError when config.json is not among ``names``; it says where one is, or what there is."""
    names = sorted(names)
    if "config.json" in names:
        return
    nested = sorted((name for name in names if name.endswith("/config.json")), key=lambda name: name.count("/"))
    if nested:
        folders = [f"{uri.rstrip('/')}/{name.removesuffix('/config.json')}/" for name in nested[:3]]
        hint = f"did you mean {' or '.join(folders)}?"
    else:
        hint = f"it holds {', '.join(names[:8])}; name what holds config.json and the weights."
    raise CheckpointError(f"{uri} is not a model directory: config.json is not in it; {hint}")


def _ordered(files: Sequence[Sequence[Part]]) -> list[Part]:
    """What can show early that a fetch is in vain comes first: small files (configuration, index), then the beginnings
    of the large ones (headers of safetensors).
    """
    small = [parts[0] for parts in files if len(parts) == 1]
    large = [list(parts) for parts in files if len(parts) > 1]
    heads = [parts.pop(0) for parts in large[:_HEADERS_FIRST]]
    return [*small, *heads, *(part for parts in large for part in parts)]


def _close(files: Iterable[StagedFile]) -> None:
    for file in files:
        file.close()


def _clean(staging: Path, *, keep: bool) -> None:
    """Remove ``staging``, unless a later fetch can go on from it and shall."""
    with suppress(OSError):
        if keep and (staging / _JOURNAL).stat().st_size:
            return
    shutil.rmtree(staging, ignore_errors=True)
