from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from bloomery.errors import ConfigurationError
from djl_python.session_manager import EXPIRATION_TIME, SessionManager


@pytest.fixture
def manager(tmp_path: Path) -> SessionManager:
    return SessionManager({"sessions_path": str(tmp_path / "sessions")})


def test_values_last_from_one_request_to_the_next(manager: SessionManager) -> None:
    session = manager.create_session()
    session.put("history", ["a", {"b": 1}])
    session.put("history/2", "c")
    again = manager.get_session(session.session_id)
    assert again is not None
    assert (again.get("history"), again.get("history/2")) == (["a", {"b": 1}], "c")
    assert (again.get("other"), again.get("other", 7)) == (None, 7)


def test_another_group_finds_the_session(manager: SessionManager) -> None:
    session = manager.create_session()
    session.put("a", 1)
    other = SessionManager({"sessions_path": manager.sessions_path}).get_session(session.session_id)
    assert other is not None
    assert other.get("a") == 1


def test_an_array_is_kept_in_its_file(manager: SessionManager) -> None:
    session = manager.create_session()
    array = session.get_as_numpy("cache", (2, 3), create=True)
    array[1, 2] = 7
    array.flush()
    np.testing.assert_array_equal(session.get_as_numpy("cache", (2, 3)), [[0, 0, 0], [0, 0, 7]])


def test_a_closed_session_is_gone(manager: SessionManager) -> None:
    session = manager.create_session()
    assert manager.close_session(session.session_id)
    assert manager.get_session(session.session_id) is None
    assert not manager.close_session(session.session_id)


def test_an_expired_session_is_gone_and_deleted(manager: SessionManager) -> None:
    old, older = manager.create_session(), manager.create_session()
    for session in (old, older):
        session.put(EXPIRATION_TIME, time.time() - 1)
    assert manager.get_session(old.session_id) is None
    kept = manager.create_session()
    assert os.listdir(manager.sessions_path) == [kept.session_id]


def test_the_expiration_is_counted_from_now(tmp_path: Path) -> None:
    manager = SessionManager({"sessions_path": str(tmp_path / "s"), "sessions_expiration": "60"})
    left = manager.create_session().get(EXPIRATION_TIME) - time.time()
    assert 0 < left <= 60


def test_what_a_client_sends_after_the_id_is_ignored(manager: SessionManager) -> None:
    session = manager.create_session()
    assert manager.get_session(f"{session.session_id}; Expires=2026-01-01T00:00:00Z") is not None


@pytest.mark.parametrize("session_id", [None, "", "..", "../../etc", "a" * 36, "NEW_SESSION"])
def test_what_is_no_id_is_refused(manager: SessionManager, session_id: str | None) -> None:
    for method in (manager.get_session, manager.close_session):
        with pytest.raises(ValueError, match="invalid session_id"):
            method(session_id)


@pytest.mark.parametrize("key", ["", ".", "..", "a\0b"])
def test_what_is_no_key_is_refused(manager: SessionManager, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be the key"):
        manager.create_session().put(key, 1)


def test_sessions_are_private(manager: SessionManager) -> None:
    session = manager.create_session()
    for path in (manager.sessions_path, session.files_path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others can write there"):
        SessionManager({"sessions_path": str(tmp_path)})


@pytest.mark.parametrize("value", ["soon", "0", "-5"])
def test_an_expiration_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"sessions_expiration={value}"):
        SessionManager({"sessions_expiration": value})


def test_sessions_in_s3_are_refused_in_words() -> None:
    with pytest.raises(ConfigurationError, match=r"sessions_s3url.*sessions_path"):
        SessionManager({"sessions_s3url": "s3://bucket/sessions"})
