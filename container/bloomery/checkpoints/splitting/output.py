"""Where a checkpoint is written to: files grow from front to back, and appear under their names when they are whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from awscrt.checksums import crc64nvme

from bloomery.checkpoints.disk.room import check_room
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.errors import CheckpointError
from bloomery.processes.lock import FileLock


class Writer(Protocol):
    """One file, from front to back."""

    def write(self, data: memoryview) -> None: ...

    def close(self) -> None:
        """All is written. Raises CheckpointError when the store has something else."""
        ...


class Output(Protocol):
    """A directory or a prefix that becomes a checkpoint when ``publish`` is called; until then nobody sees one."""

    def existing(self) -> Mapping[str, Listed] | None:
        """What MANIFEST.json says is there already. Raises CheckpointError when something else is there."""
        ...

    def read(self, name: str) -> bytes:
        """A file that is there."""
        ...

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """Raises CheckpointError when files of these names and sizes have no room."""
        ...

    def create(self, name: str, size: int) -> Writer: ...

    def publish(self, files: Mapping[str, Listed]) -> None:
        """Let it appear, with a MANIFEST.json of ``files``, which are all that were created."""
        ...


class Summing:
    """A writer that counts and sums what passes through to another one."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._size = self._crc = 0
        self._sha256 = hashlib.sha256()

    def write(self, data: memoryview) -> None:
        """As ``Writer``."""
        self._size += data.nbytes
        self._crc = crc64nvme(data, self._crc)
        self._sha256.update(data)
        self._writer.write(data)

    def close(self) -> Listed:
        """As ``Writer``; what was written."""
        self._writer.close()
        return Listed(self._size, self._crc, self._sha256.hexdigest())


class DirectoryOutput:
    """Writes into a hidden directory beside ``target``, which takes its place at the end; nothing is left otherwise."""

    def __init__(self, target: Path) -> None:
        self.target = Path(os.path.realpath(target))
        if os.path.ismount(self.target):
            raise CheckpointError(
                f"{target} is where a volume is mounted, whose place nothing can take: name a new directory in it"
            )
        self._work = self.target.with_name(f".{self.target.name}.sharding")
        self._lock = FileLock(self._work.with_name(self._work.name + ".lock"))
        self._opened = ExitStack()

    def __enter__(self) -> DirectoryOutput:
        try:
            if not self._lock.acquired():
                raise CheckpointError(f"{self.target} is being written by another process: wait for it")
            self._work.mkdir(exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self._work} cannot be written: {error.strerror}") from error
        self._clear()  # what a run that was killed has left
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        if self._work.exists():  # else it has become the target
            self._clear()
            self._work.rmdir()
        self._lock.release()

    def _clear(self) -> None:
        for left in self._work.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def existing(self) -> Mapping[str, Listed] | None:
        """As ``Output``. Each file's size must be that of the manifest."""
        if not self.target.exists() or (self.target.is_dir() and not any(self.target.iterdir())):
            return None
        try:
            found = manifest.read((self.target / manifest.NAME).read_bytes(), str(self.target / manifest.NAME))
        except OSError as error:
            raise CheckpointError(
                f"{self.target} exists and is no checkpoint that this command has written: name another directory"
            ) from error
        for name, entry in found.items():
            path = self.target / name
            if not path.is_file() or path.stat().st_size != entry.size:
                raise CheckpointError(f"{path} is not as {manifest.NAME} says: remove {self.target} and start again")
        return found

    def read(self, name: str) -> bytes:
        """As ``Output``."""
        return (self.target / name).read_bytes()

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """As ``Output``."""
        check_room(str(self.target), self._work.parent, sum(sizes.values()))

    def create(self, name: str, size: int) -> Writer:
        """As ``Output``."""
        return self._opened.enter_context(_FileWriter(self._work / name))

    def publish(self, files: Mapping[str, Listed]) -> None:
        """As ``Output``."""
        text = manifest.written(files)
        writer = self.create(manifest.NAME, len(text))
        writer.write(memoryview(text))
        writer.close()
        try:
            self._work.rename(self.target)  # onto an empty directory too
        except OSError as error:
            raise CheckpointError(f"{self.target} has appeared meanwhile ({error.strerror}): remove it") from error


class _FileWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb", buffering=0)

    def __enter__(self) -> _FileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: memoryview) -> None:
        left = data.cast("B")
        with self._explained():
            while left:
                left = left[self._file.write(left) :]

    def close(self) -> None:
        with self._explained():
            os.fsync(self._file.fileno())  # else a name could be there after a power cut, and its bytes not
            self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be written: {error.strerror}") from error
