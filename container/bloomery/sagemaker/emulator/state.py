"""The directory in which an emulator keeps what survives it, and that no other emulator uses meanwhile."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from bloomery.errors import ConfigurationError

_LOCK = "lock"


def default_directory() -> Path:
    """Below the user's state directory (XDG_STATE_HOME, else ~/.local/state)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "bloomery" / "sagemaker-local"


class StateDirectory:
    """Held for the length of a ``with`` block; the kernel lets go of it when the process dies, however it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    @property
    def database(self) -> Path:
        """SageMaker's resources."""
        return self.path / "sagemaker.sqlite"

    @property
    def objects(self) -> Path:
        """S3's buckets and objects."""
        return self.path / "s3"

    @property
    def fleet(self) -> Path:
        """For whatever runs the endpoints."""
        return self.path / "fleet"

    def __enter__(self) -> StateDirectory:
        try:
            for directory in (self.path, self.objects, self.fleet):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {self.path} cannot be used: {error.strerror}; choose another with --state DIR"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._lock, 20).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise ConfigurationError(
                f"the state directory {self.path} is in use by another emulator (process {owner}); end that one, or "
                "give this one a directory of its own with --state DIR"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
