"""Archives of models, unpacked into a private directory for as long as the server runs."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Limits:
    """What an archive may become."""

    size: int = 32 * 2**30  # bytes of all files together
    entries: int = 100_000


class Unpacked:
    """A directory below TMPDIR with what was unpacked; it goes with ``remove``, or at the latest with the process."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._root: Path | None = None
        self._finalizer: weakref.finalize[..., Unpacked] | None = None

    def unpack(self, archive: Path) -> Path:
        """The directory with the contents of ``archive``, called like it; complete, or not there at all."""
        from bloomery.settings.extraction import extract  # tarfile and zipfile take their time

        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="bloomery-models-"))
            self._finalizer = weakref.finalize(self, shutil.rmtree, self._root, True)
        place = Path(tempfile.mkdtemp(dir=self._root))
        partial = place / ".partial"
        partial.mkdir()
        try:
            extract(archive, partial, self._limits.size, self._limits.entries)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return partial.rename(place / stem(archive))

    def remove(self) -> None:
        """Delete all of it."""
        if self._finalizer is not None:
            self._finalizer()
        self._root = None


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file whose name is an archive's."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def stem(path: Path) -> str:
    """Its name without the suffix of an archive."""
    suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), "")
    return path.name[: len(path.name) - len(suffix)] or "model"
