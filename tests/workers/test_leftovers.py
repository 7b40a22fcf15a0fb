from __future__ import annotations

import os
import tempfile

import pytest

from bloomery.processes.ports import ReservedPort
from bloomery.workers import leftovers


@pytest.fixture
def port():
    reserved = ReservedPort()
    yield reserved
    reserved.close()


def test_only_our_own_allreduce_buffers_are_deleted(tmp_path, port, monkeypatch):
    monkeypatch.setattr(leftovers, "SHARED_MEMORY", tmp_path)
    prefix = f"deepspeed_allreduce_buffer_{os.getuid()}_127.0.0.1"
    own = [tmp_path / f"{prefix}_{port.number}_{rank}" for rank in (0, 1)]
    foreign = [
        tmp_path / f"{prefix}_{port.number}9_0",
        tmp_path / f"{prefix}_1_0",
        tmp_path / f"deepspeed_allreduce_buffer_{os.getuid() + 1}_127.0.0.1_{port.number}_0",
    ]
    for path in own + foreign:
        path.touch()

    leftovers.remove_allreduce_buffers(port)

    assert sorted(tmp_path.iterdir()) == sorted(foreign)


def test_a_long_temporary_directory_does_not_make_socket_paths_too_long(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    directory = leftovers.private_directory()

    directory.rmdir()
    assert len(str(directory / "sock.15.pid")) < 104
