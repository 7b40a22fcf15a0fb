"""A directory, or a file, of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from bloomery.checkpoints.source import Body, ChangedError, Entry, TransientError
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.card import licence_of
from bloomery.checkpoints.sources.names import check_names
from bloomery.errors import CheckpointError


class DirectorySource:
    """``path``: a directory with everything below it, except what is hidden; or one file."""

    def __init__(self, path: Path, uri: str | None = None) -> None:
        self.path = path
        self._uri = uri or str(path)

    @property
    def uri(self) -> str:
        """What the user wrote."""
        return self._uri

    @cached_property
    def licence(self) -> str | None:
        """Of README.md."""
        return licence_of(self.connect, self.entries)

    def entries(self) -> Sequence[Entry]:
        """Every file below the directory, links to files included. Raises CheckpointError."""
        try:
            if self.path.is_file():
                return [_entry(self.path, self.path.name)]
            found = [_entry(path, name) for path, name in _files(self.path)]
        except OSError as error:
            raise CheckpointError(f"{self._uri} cannot be read: {error.strerror or error}") from error
        if not found:
            what = "holds no files" if self.path.is_dir() else "does not exist"
            raise CheckpointError(f"{self._uri} {what} (looked at {self.path.absolute()}).")
        check_names(self._uri, (entry.name for entry in found))
        return found

    def checksummed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """With the checksums of a MANIFEST.json in the directory."""
        path = self.path / manifest.NAME
        if self.path.is_file() or not path.is_file():
            return entries
        try:
            return manifest.vouched(entries, manifest.read(path.read_bytes(), str(path)))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error

    def connect(self, http: object = None) -> FileConnection:
        """Opens files when it reads from them, and needs no ``http``."""
        return FileConnection(self.path)


class FileConnection:
    """Reads files below ``path``, or the one file that it is."""

    def __init__(self, path: Path) -> None:
        self._path, self._closed = path, False

    @contextmanager
    def read(self, entry: Entry, start: int, length: int) -> Iterator[Body]:
        """As ``source.Connection`` has it."""
        path = self._path if self._path.is_file() else self._path / entry.name
        if self._closed:
            raise TransientError(f"{path}: the connection was closed")
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        try:
            if _identity(os.fstat(file)) != entry.identity:
                raise ChangedError(f"{path} was changed while it was read")
            yield FileBody(file, path, start, length)
        finally:
            os.close(file)

    def close(self) -> None:
        """Reads under way end by themselves: a disk does not stall."""
        self._closed = True


class FileBody:
    """A range of an open file."""

    def __init__(self, file: int, path: Path, start: int, length: int) -> None:
        self._file, self._path, self._position, self._end = file, path, start, start + length

    def readinto(self, buffer: memoryview) -> int:
        """As ``source.Body`` has it."""
        wanted = buffer[: self._end - self._position]
        if not len(wanted):
            return 0
        try:
            count = os.preadv(self._file, [wanted], self._position)
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be read at {self._position}: {error.strerror}") from error
        if not count:
            raise ChangedError(f"{self._path} was cut at {self._position} while it was read")
        self._position += count
        return count


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names, in order. What is hidden (.git, .cache) belongs to tools, not to the model."""
    for directory, directories, files in os.walk(root):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(files):
            path = Path(directory, name)
            if not name.startswith(".") and path.is_file():
                yield path, path.relative_to(root).as_posix()


def _entry(path: Path, name: str) -> Entry:
    status = path.stat()
    return Entry(name, status.st_size, _identity(status))


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
