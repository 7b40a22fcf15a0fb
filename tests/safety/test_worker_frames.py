"""Garbage on a worker's socket: it is refused in one line, takes no memory, and the worker ends instead of hanging."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from tests.support.generated import for_all, numbers
from tests.support.http_grammar import damage
from tests.support.worker_client import WorkerProcess, running_worker

from bloomery.errors import ProtocolError
from bloomery.protocol.frames import Dialect, Request
from djl_python.connection import Connection, PeerClosedError

DATA = Path(__file__).parents[1] / "data"
RECORDED = json.loads((DATA / "golden_frames.json").read_text())
GOLDEN = [
    bytes.fromhex(case["request_hex"])
    for version in ("0.23.0", "0.27.0", "0.36.0")
    for case in RECORDED[version]["cases"]
]
HUGE = 2**31 - 1
CLAIMS = {
    "a negative number of properties": struct.pack(">h", -1),
    "a property's name of 2 GiB": struct.pack(">hi", 1, HUGE),
    "a property's name of a negative length": struct.pack(">hi", 1, -2),
    "a property without a name": struct.pack(">hii", 1, 0, -1) + struct.pack(">i", -1),
    "a value of 2 GiB": struct.pack(">hi", 1, 1) + b"a" + struct.pack(">i", HUGE),
    "a content part of 2 GiB": struct.pack(">hhii", 0, 1, -1, HUGE),
    "a content part of a negative length": struct.pack(">hhii", 0, 1, -1, -1),
    "a negative number of parts": struct.pack(">hh", 0, -1),
    "a name that is not UTF-8": struct.pack(">hi", 1, 2) + b"\xff\xff",
    "as many properties as there can be": struct.pack(">h", 2**15 - 1) + struct.pack(">i", 1) + b"a",
}
FRAMES = st.one_of(
    st.binary(max_size=200), st.sampled_from(GOLDEN).flatmap(damage), st.sampled_from(list(CLAIMS.values()))
)


def read_all(data: bytes) -> list[Request]:
    """What a worker's connection makes of ``data``; ProtocolError where it is no frame."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=lambda: (theirs.sendall(data), theirs.shutdown(socket.SHUT_WR)))
        sender.start()
        connection, requests = Connection(ours), []
        ours.settimeout(20)
        try:
            with contextlib.suppress(PeerClosedError):
                while True:
                    requests.append(connection.read_request())
        finally:
            ours.close()
            sender.join()
    return requests


@numbers(300, 20_000)
def test_any_bytes_are_requests_or_refused(count: int) -> None:
    def check(data: bytes) -> None:
        with contextlib.suppress(ProtocolError):
            for request in read_all(data):
                assert all(isinstance(text, str) for pair in request.properties.items() for text in pair)

    for_all(FRAMES, check, count)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))
def test_what_a_frame_claims_to_hold_takes_no_memory_until_it_comes(claim: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            read_all(claim)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], contextlib.AbstractContextManager[WorkerProcess]]:
    (tmp_path / "model").mkdir()
    shutil.copy(DATA / "golden_handler.py", tmp_path / "model" / "model.py")
    return lambda: running_worker(tmp_path / "model", tmp_path, dialect=Dialect.INT32)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))
def test_a_worker_ends_with_one_line_about_a_frame_that_is_none(
    start: Callable[[], contextlib.AbstractContextManager[WorkerProcess]], claim: bytes
) -> None:
    with start() as worker:
        assert worker.ask(json.dumps({"op": "add_str"})).text == "plain é"
        worker.socket.sendall(claim)
        worker.socket.shutdown(socket.SHUT_WR)
        assert worker.wait() == 1
        worker.wait_for_line("the request stream is broken")
        assert "Traceback" not in worker.output


@pytest.mark.parametrize("ending", ["closed at once", "closed within a frame", "closed before the answer is read"])
def test_a_worker_whose_server_vanishes_ends(
    start: Callable[[], contextlib.AbstractContextManager[WorkerProcess]], ending: str
) -> None:
    with start() as worker:
        if ending == "closed within a frame":
            worker.socket.sendall(GOLDEN[-1][:7])
        if ending == "closed before the answer is read":
            worker.send(Request({"handler": "handle"}, [("data", b'{"op": "stream"}')]))
        worker.close_connection()
        assert worker.wait() in (0, 1)
        assert "Traceback" not in worker.output
