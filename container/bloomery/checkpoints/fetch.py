"""Bring a checkpoint to a local directory: ``fetch("s3://bucket/prefix")``, a hub id, or a directory that is here.

Several ranks, and several servers, may ask for the same one at once: a lock file lets one of them fetch while the
others wait and then find it complete. What was fetched is reused as long as the source has not changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bloomery.checkpoints import hub, s3
from bloomery.errors import CheckpointError
from bloomery.processes import rank
from bloomery.settings.security import Security

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOCK_POLL_SECONDS = 0.2


def fetch(
    uri: str | Path,
    *,
    directory: str | Path | None = None,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    any_layout: bool = False,
) -> Path:
    """The local directory that holds the checkpoint of ``uri``.

    A local path or ``file://`` URL is returned as it is. ``s3://bucket/prefix`` and hub ids (``org/name``) are fetched
    into ``directory`` (the temporary directory by default, which TMPDIR moves), into a folder of their own whose name
    ends with a hash of what was asked for. ``allow_patterns`` names the wanted files ("*.safetensors"); without it
    all are taken except weights that are there in a second format. Unless ``any_layout``, config.json must be among
    them. Raises CheckpointError, and ConfigurationError for files that SageMaker's security controls forbid.
    """
    text = str(uri)
    local = _local_path(text)
    if local is not None:
        return _checked(local, text)
    parent = Path(directory or tempfile.gettempdir())
    name = text.removeprefix("s3://").strip("/").rpartition("/")[2]
    asked = repr((text.rstrip("/"), revision, sorted(allow_patterns or ())))
    target = parent / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    with _locked(target):
        if directory is None:
            _check_owner(target)
        if text.startswith("s3://"):
            s3.fetch(text, target, allow_patterns)
        else:
            hub.fetch(text, target, revision, allow_patterns)
    return _searched(target) if allow_patterns or any_layout else _checked(target, text)


def _local_path(uri: str) -> Path | None:
    """The path that ``uri`` names, None when it is a URL or a hub id."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "file":
        return Path(unquote(urlsplit(uri).path))
    if separator and scheme == "s3" and "@" in rest.partition("/")[0]:  # botocore would quote it in its own error
        raise CheckpointError(
            f"s3://***@{rest.partition('@')[2]}: an s3:// address holds no credentials; give them as AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or as a role"
        )
    if separator and scheme == "s3" and rest.strip("/"):
        return None
    if separator:
        raise CheckpointError(
            f"{uri} cannot be fetched: give s3://bucket/prefix, a model hub's id such as bigscience/bloom-560m, "
            "a directory, or file:///directory."
        )
    path = Path(uri).expanduser()
    return path if path.exists() or not _HUB_ID.fullmatch(uri) or uri.startswith(".") else None


def _checked(path: Path, uri: str) -> Path:
    """``path``, if a model is in it."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{uri} {what}: name the directory that holds config.json (looked at {path.absolute()}).")
    if not (path / "config.json").is_file():
        found = sorted(entry.name for entry in path.iterdir())[:8]
        raise CheckpointError(
            f"{uri} is not a model directory: config.json is not in {path.absolute()}, which holds "
            f"{', '.join(found) or 'nothing'}; name the directory that holds config.json and the weights."
        )
    return _searched(path)


def _searched(path: Path) -> Path:
    """``path``, if nothing in it is forbidden by SageMaker's security controls; raises ConfigurationError."""
    Security.read(os.environ).search(path)
    return path


def _check_owner(target: Path) -> None:
    """Names in the temporary directory can be guessed: what another user put there is not what was asked for."""
    if target.is_symlink() or (target.exists() and target.stat().st_uid != os.geteuid()):
        raise CheckpointError(
            f"{target} belongs to somebody else: remove it, or set TMPDIR to a directory of your own."
        )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of ``target``. The kernel frees it when its holder dies, so a killed fetch blocks nobody."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(target.with_name(target.name + ".lock"), _LOCK_FLAGS, 0o600)
    except OSError as error:
        raise CheckpointError(
            f"{target.parent} cannot be written ({error.strerror}): set TMPDIR to a directory with room."
        ) from error
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                rank.current.report("waiting for another process to fetch the checkpoint")
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(lock)
