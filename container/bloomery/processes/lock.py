"""A lock between processes, in a file: of one machine, or of several that share a file system with working locks."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
POLL_SECONDS = 0.2


class FileLock:
    """The kernel frees it when its holder dies, so nobody who was killed blocks anybody. The file goes with the lock.

    Who waits calls ``acquired`` every ``POLL_SECONDS``, in whichever way it sleeps.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquired(self) -> bool:
        """Try once. Raises OSError when the file cannot be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, _FLAGS, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed the file meanwhile: then this is a lock that nobody else will look at.
            if self._is_ours(file):
                self._file, file = file, -1
        except BlockingIOError:
            pass
        finally:
            if file >= 0:
                os.close(file)
        return self._file is not None

    def release(self) -> None:
        """Let the next one have it; nothing happens when it is not held."""
        if self._file is not None:
            with suppress(OSError):
                if self._is_ours(self._file):
                    self._path.unlink()
            os.close(self._file)
            self._file = None

    def _is_ours(self, file: int) -> bool:
        """Whether the open ``file`` is the one at the path."""
        try:
            return os.fstat(file).st_ino == self._path.lstat().st_ino
        except FileNotFoundError:
            return False
