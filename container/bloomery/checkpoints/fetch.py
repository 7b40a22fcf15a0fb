"""Bring a checkpoint to a local directory: ``fetch("s3://bucket/prefix")``, a hub id, or a directory that is here.

Several ranks, and several servers, may ask for the same one at once: a lock lets one of them fetch while the others
wait and then find it complete. What was fetched is reused as long as the source has not changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bloomery.checkpoints.disk.delivery import Delivery, deliver
from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.source import Source
from bloomery.checkpoints.sources import local_path, open_source
from bloomery.checkpoints.sources.directory import DirectorySource
from bloomery.errors import CheckpointError
from bloomery.processes import rank
from bloomery.processes.lock import POLL_SECONDS, FileLock
from bloomery.settings.security import Security

log = logging.getLogger(__name__)

LOCK = ".fetching.lock"
_CONFIG = "config.json"
_WAITING = "waiting for another process to fetch the checkpoint"
_WAITING_LOG_SECONDS = 30.0


def fetch(
    uri: str | Path,
    *,
    directory: str | Path | None = None,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    any_layout: bool = False,
    source: Source | None = None,
) -> Path:
    """The local directory that holds the checkpoint of ``uri``.

    A local path or ``file://`` URL is returned as it is. What ``open_source`` knows besides (s3://, https://, a hub's
    id) is fetched into ``directory`` (the temporary directory by default, which TMPDIR moves), into a folder of its own
    whose name ends with a hash of what was asked for. ``allow_patterns`` names the wanted files ("*.safetensors");
    without it all are taken except weights that are there in a second format. Unless ``any_layout``, config.json must
    be among them. ``source``: what ``uri`` names, for who has opened it already. Raises CheckpointError, and
    ConfigurationError for files that SageMaker's security controls forbid.
    """
    text = str(uri)
    local = local_path(text)
    if local is not None:
        return _checked(local, text)
    source = source or open_source(text, revision=revision)
    if isinstance(source, DirectorySource):  # a hub's model in the hub's own cache, when nobody may be asked
        return _searched(source.path) if allow_patterns or any_layout else _checked(source.path, text)
    parent = Path(directory or tempfile.gettempdir())
    name = source.uri.rstrip("/").rpartition("/")[2].partition("@")[0]  # without what may be secret in a query
    asked = repr((text.removeprefix("hf://").rstrip("/"), revision, sorted(allow_patterns or ())))
    target = parent / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    is_free = bool(allow_patterns) or any_layout
    fetch_into(source, target, allow_patterns=allow_patterns, is_model=not is_free, is_guessable=directory is None)
    return _searched(target) if is_free else _checked(target, text)


def fetch_into(
    source: Source,
    target: Path,
    *,
    options: FetchOptions | None = None,
    allow_patterns: Sequence[str] | None = None,
    is_model: bool = False,
    is_guessable: bool = False,
    seen: Callable[[int, int], object] | None = None,
) -> Delivery:
    """Make the directory ``target`` hold the wanted files of ``source`` as they are now; one process at a time does.

    ``options``: from the environment by default. ``is_model``: whether config.json must be there. ``is_guessable``:
    whether others may have made ``target`` before. ``seen`` is told how many bytes are there, and of how many, from any
    thread. Raises CheckpointError, with nothing new under the final names; what serves a later fetch stays in a hidden
    directory, unless the options want none to go on.
    """
    is_new = not target.exists()
    try:
        with _locked(target):
            if is_guessable:
                _check_owner(target)
            return deliver(source, target, options or FetchOptions.read(), allow_patterns, is_model, seen)
    except BaseException:
        if is_new:
            with suppress(OSError):  # it holds what a later fetch can go on from
                target.rmdir()
        raise


def _checked(path: Path, uri: str) -> Path:
    """``path``, if a model is in it."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{uri} {what}: name the directory that holds config.json (looked at {path.absolute()}).")
    if not (path / _CONFIG).is_file():
        found = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))[:8]
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
    if target.is_symlink() or target.stat().st_uid != os.geteuid():
        raise CheckpointError(
            f"{target} belongs to somebody else: remove it, or set TMPDIR to a directory of your own."
        )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of ``target``, which exists then."""
    lock = FileLock(target / LOCK)
    logged = 0.0
    try:
        while not lock.acquired():
            rank.current.report(_WAITING)
            if not logged or time.monotonic() - logged > _WAITING_LOG_SECONDS:
                logged = time.monotonic()
                log.info("%s: %s", target, _WAITING)
            time.sleep(POLL_SECONDS)
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written ({error.strerror}): name another directory, or set TMPDIR to one."
        ) from error
    try:
        yield
    finally:
        lock.release()
