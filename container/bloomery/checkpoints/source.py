"""What a checkpoint can be read from: a source lists files, and its connections read ranges of their bytes.

Implementations: ``s3``, ``hub``, ``https``, ``directory``. Nothing above this protocol knows which one it reads from.
A connection makes one attempt; who calls it retries (``retry``), so that every source survives the same faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bloomery.errors import CheckpointError

if TYPE_CHECKING:
    from bloomery.checkpoints.wire.http import Http


@dataclass(frozen=True)
class Entry:
    """One file of a checkpoint.

    ``name``: its path below the checkpoint, with slashes, never leaving it. ``size``: bytes. ``identity``: changes when
    the content does (an ETag, a commit and blob, an inode and a time). ``crc64nvme``: of the whole file, where the
    source vouches for it (S3's FULL_OBJECT checksum, or a MANIFEST.json), else None; ``sha256`` likewise, in hex.
    """

    name: str
    size: int
    identity: str
    crc64nvme: int | None = None
    sha256: str | None = None


class Body(Protocol):
    """The bytes of one answer, in order."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as one read brings bytes; their number, and 0 after the last byte of the range.

        Fewer than fit may come before the end, when the connection paused. Raises TransientError when it breaks,
        stalls, or ends before the range does.
        """
        ...


@dataclass(frozen=True)
class Place:
    """Where in a file the next bytes go. ``crc``: the CRC64NVME of those before, None when nobody wants one."""

    path: str
    position: int
    crc: int | None


@runtime_checkable
class WritingBody(Body, Protocol):
    """The bytes of an answer that another process reads, and can put into a file."""

    def write(self, place: Place, length: int) -> tuple[int, int | None]:
        """Put more bytes there, at most ``length``, which is all that is wanted: how many, at least one, and the CRC
        with them. Raises as ``readinto``, and OSError when the file cannot be written.
        """
        ...


class Connection(Protocol):
    """Reads ranges, one after the other. Not for several threads at once: each opens its own."""

    def read(self, entry: Entry, start: int, length: int) -> AbstractContextManager[Body]:
        """``length`` bytes of ``entry`` from ``start``. Leaving the block early costs at most the connection.

        One attempt. Raises TransientError when another attempt may succeed, ChangedError when the file is not the
        ``entry`` any more, and any other CheckpointError, which names file, range and cause, when it never will.
        """
        ...

    def close(self) -> None:
        """Close it, from any thread: what is being read fails at once with a TransientError, and so do later reads."""
        ...


class Source(Protocol):
    """A checkpoint somewhere. For several threads at once. ``uri`` is what a user wrote, fit to be shown."""

    @property
    def uri(self) -> str: ...

    @property
    def licence(self) -> str | None:
        """Of its model card, None when it has none. May ask the source, and never fails."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Every file, as it is now. Raises CheckpointError, which says why there is none; UnreachableError when the
        source could not be asked.
        """
        ...

    def checksummed(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The same entries with the checksums that the source vouches for. May cost a request for each: give it only
        the files that are wanted. Raises CheckpointError.
        """
        ...

    def connect(self, http: Http = ...) -> Connection:
        """A new connection; opens nothing until it reads. ``http`` makes what it reads with, where that is HTTP."""
        ...


class TransientError(CheckpointError):
    """One attempt failed; another may succeed.

    ``slow_down``: the source asks for fewer requests (SlowDown, 429). ``after``: seconds it wants to be left alone.
    """

    def __init__(self, message: str, *, slow_down: bool = False, after: float | None = None) -> None:
        super().__init__(message)
        self.slow_down, self.after = slow_down, after


class ChangedError(CheckpointError):
    """A file is not what it was when it was listed."""


class UnreachableError(CheckpointError):
    """The source could not be asked (no network, HF_HUB_OFFLINE): a copy fetched earlier is the best there is."""
