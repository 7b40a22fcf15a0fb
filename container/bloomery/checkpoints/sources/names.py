"""Names of files in a checkpoint: whoever wrote the source chose them, and they become paths on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from bloomery.errors import CheckpointError

_LONGEST = 255  # bytes of one part of a path


def check_names(uri: str, names: Iterable[str]) -> None:
    """Raise a CheckpointError for a name that cannot be a file below one directory, or that is in another's way."""
    found = set(names)
    for name in found:
        parts = name.split("/")
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="backslashreplace").decode()
            raise CheckpointError(f"{uri} holds a file whose name is not UTF-8 ({shown}): rename it.") from None
        if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
            raise CheckpointError(f"{uri} holds an object named {name!r}, which would leave its directory: remove it.")
        if "" in parts or "." in parts or any(len(part.encode()) > _LONGEST for part in parts):
            raise CheckpointError(f"{uri} holds an object named {name!r}, which cannot be a file's path: rename it.")
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in found:
                raise CheckpointError(
                    f"{uri} holds {'/'.join(parts[:count])!r} both as a file and as a directory (of {name!r}): "
                    "remove one of them."
                )
