"""Whatever a worker process answers: the client gets HTTP with the cause, the server lives, the group comes back."""

from __future__ import annotations

import contextlib
import json
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import strategies as st
from tests.support.generated import for_all, numbers
from tests.support.http_grammar import damage
from tests.support.raw_http import RawReply, exchange
from tests.support.server import Server, model_directory, serving
from tests.support.unharmed import open_files

from bloomery.protocol.frames import Chunk, ContentPart, ResponseHead, encode_chunk, encode_response
from djl_python import Output

# A worker that answers the initialise call rightly, and every request with the bytes that the request holds.
WORKER = """#!{python}
import json, os, socket, sys, time
from bloomery.processes import control
from bloomery.protocol.frames import ResponseHead, decode_request, encode_response, read_blocking

control.serve(os.environ["BLOOMERY_CONTROL_SOCKET"])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--sock-name") + 1])
listener.listen()
print("Python engine started.", flush=True)
connection, _ = listener.accept()
stream = connection.makefile("rb")

def receive(count):
    data = stream.read(count)
    if len(data) < count:
        sys.exit(0)
    return data

while True:
    request, _ = read_blocking(decode_request(), receive)
    if not request.content:
        connection.sendall(encode_response(ResponseHead(200, "OK")))
        continue
    order = json.loads(request.content[0][1])
    tracking_id = request.properties.get("request_tracking_id", "")
    data = bytes.fromhex(order["answer"]).replace(b"TRACKING-ID-OF-THIS-VERY-REQUEST", tracking_id.encode())
    connection.sendall(bytes.fromhex(order["first"]))
    while True:
        connection.sendall(data)
        if order["then"] != "repeat":
            break
    if order["then"] == "close":
        os._exit(0)
    while order["then"] != "serve":
        time.sleep(1)
"""
PROPERTIES = """engine=Python
option.predict_timeout=1
option.on_disconnect=restart
chunked_read_timeout=1
retry_threshold=100000
crash_loop_limit=100000
"""
GOOD = encode_response(ResponseHead(200, "OK", {}, [("data", b"good")]))


TRACKED = {"request_tracking_id": "TRACKING-ID-OF-THIS-VERY-REQUEST"}  # as long as the id that replaces it


@contextlib.contextmanager
def served(directory: Path, properties: str = "") -> Iterator[Server]:
    """A server whose worker is the one above."""
    worker = directory / "worker"
    worker.write_text(WORKER.format(python=sys.executable))
    worker.chmod(worker.stat().st_mode | stat.S_IXUSR)
    stated = f"{PROPERTIES}{properties}option.pythonExecutable={worker}\n"
    with serving(model_directory(directory / "model", "", stated)) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("hostile-worker")) as running:
        yield running


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that sends many requests at once to its worker, and tells the answers apart by their tracking ids."""
    with served(tmp_path_factory.mktemp("overlapping"), "option.async_mode=true\n") as running:
        yield running


def request(answer: bytes, then: str, first: bytes = b"") -> bytes:
    """A request that the worker answers with these bytes: ``first``, then ``answer``, perhaps for ever."""
    body = json.dumps({"first": first.hex(), "answer": answer.hex(), "then": then}).encode()
    return b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def answered(server: Server, answer: bytes, then: str = "serve") -> tuple[RawReply | None, bool]:
    """The reply to such a request, and whether it was whole."""
    with exchange(server.port) as connection:
        connection.send(request(answer, then))
        return connection.reply_or_beginning()


def recovers(server: Server, good: bytes = GOOD) -> None:
    """The next right answer comes, however the group is just now."""
    deadline = time.monotonic() + 30
    while True:
        reply, _ = answered(server, good)
        assert reply is not None
        if reply.status == 200 and reply.body == b"good":
            return
        assert reply.status < 500 or json.loads(reply.body)["message"]
        assert time.monotonic() < deadline, reply


TEXTS = st.text(max_size=20) | st.text("\r\n\x00\x7f\u2028\ud800:", max_size=8) | st.just("x" * 5000)
NAMES = TEXTS | st.sampled_from(["Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "request_tracking_id"])
CODES = st.integers(-(2**15), 2**15 - 1) | st.sampled_from(
    [0, 99, 100, 101, 199, 200, 204, 304, 424, 507, 600, 1000, -1]
)
PARTS: st.SearchStrategy[list[ContentPart]] = st.lists(st.tuples(TEXTS | st.none(), st.binary(max_size=50)), max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A frame that is one, whatever it says."""
    stream = draw(st.booleans())
    head = ResponseHead(
        draw(CODES), draw(TEXTS), draw(st.dictionaries(NAMES, TEXTS, max_size=3)), None if stream else draw(PARTS)
    )
    chunks = [Chunk(data, False) for data in draw(st.lists(st.binary(max_size=50), max_size=3))] if stream else []
    if stream:
        chunks.append(Chunk(draw(st.binary(max_size=20)), True))
    return encode_response(head) + b"".join(map(encode_chunk, chunks))


@numbers(150, 3000)
def test_any_answer_that_is_a_frame_reaches_the_client_as_http(server: Server, count: int) -> None:
    worker = psutil.Process(server.process.pid).children()[0].pid

    def check(answer: bytes) -> None:
        reply, _ = answered(server, answer)
        assert reply is not None
        assert 200 <= reply.status <= 599
        assert answered(server, GOOD)[0] is not None

    for_all(answers(), check, count)
    recovers(server)
    assert psutil.Process(server.process.pid).children()[0].pid == worker


@numbers(20, 1000)
def test_an_answer_that_is_no_frame_is_a_503_with_the_cause_and_the_group_comes_back(
    server: Server, count: int
) -> None:
    def check(answer: bytes) -> None:
        reply, whole = answered(server, answer, "close")
        if reply is not None and whole and reply.status == 503:
            assert json.loads(reply.body)["message"]
        recovers(server)

    files = open_files(server)
    for_all(st.binary(max_size=100) | answers().flatmap(damage), check, count)
    assert open_files(server) < files + 10


HUGE = 2**31 - 1
OK = struct.pack(">hi", 200, 2) + b"OK"
BROKEN = {
    "a message of 2 GiB": struct.pack(">hi", 200, HUGE),
    "a message of a negative length": struct.pack(">hi", 200, -2),
    "a message that is not UTF-8": struct.pack(">hi", 200, 2) + b"\xff\xfe",
    "a negative number of properties": OK + struct.pack(">h", -5),
    "a property without a name": OK + struct.pack(">hii", 1, -1, -1),
    "a property of 2 GiB": OK + struct.pack(">hi", 1, HUGE),
    "a part of 2 GiB": OK + struct.pack(">hhii", 0, 1, -1, HUGE),
    "a part of a negative length": OK + struct.pack(">hhii", 0, 1, -1, -7),
    "a negative number of parts": OK + struct.pack(">hh", 0, -2),
    "a chunk of a negative length": OK + struct.pack(">hhbi", 0, -1, 1, -1),
    "a chunk that is neither last nor more": OK + struct.pack(">hhbi", 0, -1, 7, 1),
    "a chunk of 2 GiB": OK + struct.pack(">hhbi", 0, -1, 1, HUGE),
    "nothing": b"",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=list(BROKEN))
def test_a_claim_that_cannot_be_true_is_an_error_in_bounded_time_and_memory(server: Server, answer: bytes) -> None:
    started = time.monotonic()
    reply, whole = answered(server, answer, "wait")
    assert time.monotonic() - started < 15
    assert reply is not None
    assert reply.status == 503 or (reply.status == 200 and not whole)
    if reply.status == 503:
        assert json.loads(reply.body)["message"]
    assert psutil.Process(server.process.pid).memory_info().rss < 200 * 2**20
    recovers(server)


def test_a_stream_without_end_goes_on_until_its_client_leaves(server: Server) -> None:
    head = encode_response(ResponseHead(200, "OK", {}, None))
    with exchange(server.port) as connection:
        connection.send(request(encode_chunk(Chunk(b"x" * 1000, False)), "repeat", head))
        taken = 0
        while taken < 2**24:
            taken += len(connection.socket.recv(2**16))
    assert psutil.Process(server.process.pid).memory_info().rss < 200 * 2**20
    recovers(server)


def test_answers_without_end_take_no_memory_and_end_with_their_worker(server: Server) -> None:
    reply, _ = answered(server, encode_response(ResponseHead(200, "OK", {}, [("data", b"x" * 10_000)])), "repeat")
    assert reply is not None
    assert psutil.Process(server.process.pid).memory_info().rss < 200 * 2**20
    recovers(server)


PIECES = st.dictionaries(
    st.sampled_from(["data", "last", "code", "error", "other"]),
    TEXTS | st.sampled_from(["true", "True", "false", "200", "0", "99", "1000", "-1", "٣", "9" * 30]),
)


@numbers(40, 1000)
def test_any_pieces_of_an_overlapping_answer_reach_the_client_as_http(overlapping: Server, count: int) -> None:
    last = encode_response(ResponseHead(200, "OK", TRACKED, [("data", Output.binary_encode({"last": "true"}))]))
    good = encode_response(ResponseHead(200, "OK", TRACKED, [("data", b"good")]))

    def check(case: tuple[list[dict[str, str]], int]) -> None:
        pieces, code = case
        heads = [ResponseHead(code, "", TRACKED, [("data", Output.binary_encode(piece))]) for piece in pieces]
        reply, _ = answered(overlapping, b"".join(map(encode_response, heads)) + last)
        assert reply is not None
        assert 200 <= reply.status <= 599

    for_all(st.tuples(st.lists(PIECES, max_size=3), st.just(200) | CODES), check, count)
    recovers(overlapping, good)


@pytest.mark.parametrize("properties", [{}, {"request_tracking_id": ""}, {"request_tracking_id": "somebody else's"}])
def test_an_answer_to_nobodys_request_is_no_answer(overlapping: Server, properties: dict[str, str]) -> None:
    stray = ResponseHead(200, "OK", properties, [("data", b"not yours")])
    reply, _ = answered(overlapping, encode_response(stray))
    assert reply is not None
    assert (reply.status, json.loads(reply.body)["type"]) == (503, "ServiceUnavailableException")
    recovers(overlapping, encode_response(ResponseHead(200, "OK", TRACKED, [("data", b"good")])))
