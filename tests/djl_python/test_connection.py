from __future__ import annotations

import socket
import struct
import tracemalloc
from pathlib import Path

import pytest

from bloomery.errors import ConfigurationError, ProtocolError
from bloomery.protocol.frames import Dialect, Request, encode_request
from djl_python.connection import Address, Connection, PeerClosedError, accept, listening


def test_a_huge_claimed_length_is_not_allocated() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack(">hhii", 0, 1, -1, 2**31 - 1) + b"few bytes")
    theirs.close()
    tracemalloc.start()
    with ours, pytest.raises(ProtocolError, match="of 2147483647 bytes came"):
        Connection(ours).read_request()
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_the_dialect_of_the_first_request_holds_for_one_without_properties() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours)
        for request in (Request({"a": "b"}), Request({}, [("data", b"x")])):
            theirs.sendall(encode_request(request, Dialect.INT16))
            assert connection.read_request() == request
        assert connection.dialect is Dialect.INT16


def test_a_peer_that_leaves_between_frames_has_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(PeerClosedError):
        Connection(ours).read_request()


def test_a_peer_that_leaves_before_the_answer_has_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(PeerClosedError):
        Connection(ours).send([b"answer"])


def test_nobody_connecting_is_an_error_with_djlservings_words(tmp_path: Path) -> None:
    with (
        listening(Address(path=str(tmp_path / "sock"))) as listener,
        pytest.raises(TimeoutError, match=r"Listener timed out in: 0\.01 s\."),
    ):
        accept(listener, timeout=0.01)


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with listening(Address(path=path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_path_that_is_too_long_says_so() -> None:
    path = "/tmp/" + "x" * 120
    with pytest.raises(ConfigurationError, match=r"125 bytes.*TMPDIR"), listening(Address(path=path)):
        pass
