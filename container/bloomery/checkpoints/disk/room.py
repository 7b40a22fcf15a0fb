"""Whether the disk has room for what is to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from bloomery.checkpoints.progress import megabytes
from bloomery.errors import CheckpointError

_BLOCK = 512  # bytes: stat's unit, whatever the file system's is
_RESERVE = 64 << 20  # bytes that stay free


def to_come(file: Path, size: int) -> int:
    """How many bytes more a sparse ``file`` takes when all ``size`` of it are written. Raises OSError."""
    return max(0, size - file.stat().st_blocks * _BLOCK)


def check_room(uri: str, directory: Path, needed: int) -> None:
    """Raise a CheckpointError when ``needed`` bytes do not fit into ``directory``, which exists."""
    free = shutil.disk_usage(directory).free
    if free < needed + _RESERVE:
        raise CheckpointError(
            f"{uri} needs {megabytes(needed)} in {directory}, where {megabytes(free)} are free: name a directory on a "
            "larger volume (TMPDIR; on SageMaker: VolumeSizeInGB)."
        )
