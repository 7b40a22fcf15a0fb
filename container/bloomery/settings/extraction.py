"""What is in an archive, written into a directory: whatever it is, nothing lands outside.

Files and directories come first, links last: while data is written there is no link that it could be written through.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol, cast

from bloomery.errors import ConfigurationError

_CHUNK = 2**20
_LONGEST_HEADER = 16 * 2**20  # bytes that a tar header may claim at once; tarfile reads them into memory
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, NotImplementedError)
_Kind = Literal["file", "directory", "symlink", "hardlink", "other"]


def extract(archive: Path, root: Path, size: int, entries: int, *, links: bool = True) -> None:
    """Write the files, directories and links of ``archive`` below ``root``, ``size`` bytes in ``entries`` at most.

    Raises ConfigurationError for paths and links that lead out, for devices, for what is too large or damaged; and for
    every link where ``links`` is false.
    """
    _Extraction(archive, root, size, entries, links).run()


class _Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: _Kind
    executable: bool = False
    target: str = ""
    data: _Source | None = None


@dataclass
class _Extraction:
    archive: Path
    root: Path
    size: int
    entries: int
    links_allowed: bool = True
    written: int = 0
    links: dict[tuple[str, ...], tuple[str, str]] = field(default_factory=dict)  # parts -> name, target

    def run(self) -> None:
        try:
            found = self._zip() if self.archive.name.lower().endswith(".zip") else self._tar()
            for count, entry in enumerate(found, 1):
                if count > self.entries:
                    raise self._refusal(f"has more than {self.entries} entries (max_archive_entries)")
                self._put(entry)
            for parts, (name, target) in self.links.items():
                self._link(parts, name, target)
        except _BROKEN as error:
            raise self._refusal(f"is damaged, or no archive of the kind its name says ({error})") from error
        except OSError as error:
            raise self._refusal(f"cannot be unpacked: {error}") from error

    def _put(self, entry: _Entry) -> None:
        parts = self._parts(entry.name)
        if entry.kind == "other":
            raise self._refusal(f"holds {entry.name!r}, which is neither a file, a directory nor a link")
        if entry.kind in ("symlink", "hardlink") and not self.links_allowed:
            raise self._refusal(f"holds {entry.name!r}, a link to {entry.target!r}")
        if not parts:
            if entry.kind == "directory":
                return
            raise self._refusal(f"has a {entry.kind} without a name")
        path = self.root.joinpath(*parts)
        if entry.kind == "directory":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "symlink":
            self.links[parts] = (entry.name, entry.target)
            return
        path.unlink(missing_ok=True)  # tar appends new versions of a file; the last one counts
        if entry.kind == "hardlink":
            os.link(self.root.joinpath(*self._parts(entry.target)), path)
        elif entry.data is not None:
            self._write(path, entry.data, 0o755 if entry.executable else 0o644)

    def _write(self, path: Path, data: _Source, mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            while block := data.read(_CHUNK):
                self.written += len(block)
                if self.written > self.size:
                    raise self._refusal(f"unpacks to more than {self.size} bytes (max_archive_size)")
                file.write(block)

    def _link(self, parts: tuple[str, ...], name: str, target: str) -> None:
        """A symbolic link whose target lies inside, reached without passing through another link: what such a
        detour means is only known at run time."""
        here = list(parts[:-1])
        steps = target.split("/")
        if target.startswith("/"):
            raise self._refusal(f"has the link {name!r} to {target!r}, an absolute path")
        for position, step in enumerate(steps):
            if step == ".." and not here:
                raise self._refusal(f"has the link {name!r} to {target!r}, which points out of it")
            if step == "..":
                here.pop()
            elif step not in ("", "."):
                here.append(step)
                if tuple(here) in self.links and position < len(steps) - 1:
                    raise self._refusal(f"has the link {name!r} to {target!r}, which leads through another link")
        self.root.joinpath(*parts).symlink_to(target)

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or ".." in parts:
            raise self._refusal(f"holds {name!r}, a path that leads out of it")
        return parts

    def _tar(self) -> Iterator[_Entry]:
        zipped = self.archive.name.lower().endswith("gz")
        with self.archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) if zipped else raw as plain:
            reader = _Bounded(plain, self.size + self.entries * 4096)
            with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r:") as tar:
                while (member := tar.next()) is not None:
                    kind = _tar_kind(member)
                    data = tar.extractfile(member) if kind == "file" else None
                    yield _Entry(member.name, kind, bool(member.mode & 0o111), member.linkname, data)
                    tar.members = []  # type: ignore[attr-defined]  # or it remembers every entry

    def _zip(self) -> Iterator[_Entry]:
        with zipfile.ZipFile(self.archive) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                if info.flag_bits & 1:
                    raise self._refusal(f"holds {info.filename!r} encrypted")
                if info.is_dir():
                    yield _Entry(info.filename, "directory")
                    continue
                with archive.open(info) as data:
                    if stat.S_ISLNK(mode):
                        yield _Entry(info.filename, "symlink", target=os.fsdecode(data.read(4096)))
                    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                        yield _Entry(info.filename, "other")
                    else:
                        yield _Entry(info.filename, "file", bool(mode & 0o111), data=data)

    def _refusal(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self.archive} {what}; it is not served")


def _tar_kind(member: tarfile.TarInfo) -> _Kind:
    if member.isreg():
        return "file"
    if member.isdir():
        return "directory"
    if member.issym():
        return "symlink"
    return "hardlink" if member.islnk() else "other"


class _Bounded:
    """A file for tarfile that never skips or reads further than an honest archive would."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file, self._limit = file, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        if position > self._limit:
            raise tarfile.ReadError(f"an entry claims to reach up to byte {position}")
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()
