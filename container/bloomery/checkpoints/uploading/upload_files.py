"""Which files of a directory go up, and what is known of them without asking S3."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from awscrt.checksums import crc64nvme

from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.names import check_names
from bloomery.errors import CheckpointError

_CHUNK = 8 << 20


@dataclass(frozen=True)
class LocalFile:
    """``name``: its path below the directory, with slashes. ``modified``: nanoseconds."""

    name: str
    path: Path
    size: int
    modified: int

    def check_unchanged(self) -> None:
        """Raises CheckpointError when it is not as it was when it was listed."""
        now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise CheckpointError(f"{self.path} was changed while it was uploaded: start again when it is complete")

    def chunks(self) -> Iterator[bytes]:
        """All of it."""
        try:
            with self.path.open("rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror}") from error

    def crc64nvme(self) -> int:
        """Of all of it."""
        crc = 0
        for chunk in self.chunks():
            crc = crc64nvme(chunk, crc)
        return crc

    def sha256(self, cancelled: threading.Event) -> str:
        """Of all of it, in hex; of no use when it was ``cancelled``."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            if cancelled.is_set():
                break
            digest.update(chunk)
        return digest.hexdigest()


def local_files(directory: Path) -> list[LocalFile]:
    """The regular files below ``directory``, but no hidden ones, nothing of Python's, and not its MANIFEST.json.

    Raises CheckpointError when there is none, and for a symbolic link that leads out of the directory: what is behind
    it may be anything, and would be sent under a name that does not say so.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is no directory: name the one that holds the files to be uploaded")
    root = directory.resolve()
    found = []
    for parent, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not _is_private(name))
        for name in sorted(name for name in (*names, *folders) if not _is_private(name)):
            path = Path(parent) / name
            if path.is_symlink():
                _check_link(path, root)
            if name in folders:
                continue
            if not path.is_file():
                raise CheckpointError(f"{path} is neither a file nor a directory, and cannot be uploaded: remove it")
            about = path.stat()
            found.append(LocalFile(path.relative_to(directory).as_posix(), path, about.st_size, about.st_mtime_ns))
    found = [file for file in found if file.name != manifest.NAME]
    if not found:
        raise CheckpointError(f"{directory} holds no files that can be uploaded (hidden ones are not)")
    check_names(str(directory), (file.name for file in found))
    return found


def local_manifest(directory: Path) -> Mapping[str, Listed]:
    """What MANIFEST.json in the directory says; nothing without one."""
    path = directory / manifest.NAME
    return manifest.read(path.read_bytes(), str(path)) if path.is_file() else {}


def _is_private(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _check_link(path: Path, root: Path) -> None:
    behind = path.resolve()
    if path.is_dir() or not behind.is_relative_to(root):
        raise CheckpointError(
            f"{path} is a link to {behind}, which is {'a directory' if path.is_dir() else 'outside'}: copy the file "
            "there (a hub's cache is full of such links: bloomery fetch, or hf download --local-dir, makes files)"
        )
