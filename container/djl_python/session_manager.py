"""Sessions of a handler: what it wants to keep from one request of a client to the next, in files.

    manager = SessionManager(properties)
    session = manager.create_session()               # its id goes to the client, who sends it with later requests
    session.put("history", [...])
    manager.get_session(session_id).get("history")
    manager.close_session(session_id)

All groups of a model share the directory (option.sessions_path), so any of them may answer the next request. Values
are pickled, because handlers keep tensors and objects of their own classes. That is safe as long as nobody else writes
them: the directory must belong to this user alone, and a session's name must be an id that this module could have made.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from djl_python.libraries import needed

logger = logging.getLogger("djl_python.sessions")

DEFAULT_EXPIRATION = 20 * 60  # seconds
CREATION_TIME = ".creation_time"  # keys of every session, in seconds since 1970
EXPIRATION_TIME = ".expiration_time"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Session:
    """One session: a directory with a file per key."""

    def __init__(self, session_id: str, session_root: str | Path) -> None:
        self.session_id = session_id
        self.files_path = str(Path(session_root, session_id))

    def put(self, key: str, value: Any) -> None:
        """Keep a value; a reader at the same time finds the old one or the new one, whole."""
        path = self._path(key)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".part-", delete=False) as file:
            pickle.dump(value, file)
        os.replace(file.name, path)

    def get(self, key: str, d: Any = None) -> Any:
        """The value of ``key``, ``d`` when there is none."""
        try:
            with self._path(key).open("rb") as file:
                return pickle.load(file)
        except FileNotFoundError:
            return d

    def get_as_numpy(self, key: str, shape: Any, dtype: Any = None, create: bool = False) -> Any:
        """An array in the file itself: what is written into it is kept. ``create`` makes a new one, full of zeros."""
        np = needed("numpy", "get_as_numpy")
        mode = "w+" if create else "r+"
        return np.memmap(self._path(key), dtype=dtype or np.float32, mode=mode, shape=shape)

    def remove(self) -> bool:
        """Delete the session; False when it is gone already."""
        try:
            shutil.rmtree(self.files_path)
        except FileNotFoundError:
            return False
        return True

    def _path(self, key: str) -> Path:
        name = key.replace("/", "-")
        if name in ("", ".", "..") or "\0" in name:
            raise ValueError(f"{key!r} cannot be the key of a session's value")
        return Path(self.files_path, name)


class SessionManager:
    """Makes, finds and ends sessions. ``properties`` are those of the initialise call."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self.expiration = _seconds(properties.get("sessions_expiration", DEFAULT_EXPIRATION))
        if properties.get("sessions_s3url"):
            raise ConfigurationError(
                "option.sessions_s3url: sessions are not copied to S3 here; set option.sessions_path to a directory "
                "that outlives this machine instead, such as a network file system"
            )
        self.sessions_path = str(properties.get("sessions_path") or _default_path())
        _make_private(Path(self.sessions_path))

    def create_session(self) -> Session:
        """A new session; those that have expired are deleted on the occasion."""
        self._remove_expired()
        session = Session(str(uuid.uuid4()), self.sessions_path)
        Path(session.files_path).mkdir(mode=0o700)
        now = time.time()
        session.put(CREATION_TIME, now)
        session.put(EXPIRATION_TIME, now + self.expiration)
        return session

    def get_session(self, session_id: str | None) -> Session | None:
        """The session of that id; None when it has expired, was closed, or never existed."""
        session = Session(_checked(session_id), self.sessions_path)
        if self._expired(session):
            session.remove()
            return None
        return session if Path(session.files_path).is_dir() else None

    def close_session(self, session_id: str | None) -> bool:
        """Delete the session; False when it is gone already."""
        removed = Session(_checked(session_id), self.sessions_path).remove()
        if not removed:
            logger.warning("session not found: %s", session_id)
        return removed

    def _remove_expired(self) -> None:
        for name in os.listdir(self.sessions_path):
            session = Session(name, self.sessions_path)
            if _ID.fullmatch(name) and self._expired(session):
                session.remove()

    def _expired(self, session: Session) -> bool:
        ends = session.get(EXPIRATION_TIME)
        return ends is not None and time.time() >= ends


def _checked(session_id: str | None) -> str:
    """The id without what a client may send after it ("…; Expires=…"), if it is one."""
    bare = str(session_id or "").partition(";")[0].strip()
    if not _ID.fullmatch(bare):
        raise ValueError(f"invalid session_id: {session_id!r}")
    return bare


def _seconds(value: Any) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := float(value)) > 0:
            return seconds
    raise ConfigurationError(
        f"option.sessions_expiration={value}: it must be a number of seconds above 0, such as 1200"
    )


def _default_path() -> Path:
    """Named by user: on a shared machine each has a directory of his own. (DJLServing's is /dev/shm/djl_sessions.)"""
    shared_memory = Path("/dev/shm")
    parent = shared_memory if os.access(shared_memory, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"djl_sessions-{os.geteuid()}"


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigurationError(
            f"option.sessions_path={path}: others can write there, and what a session holds is trusted; "
            f"name a directory that is this user's own (chmod 700 {path})"
        )
