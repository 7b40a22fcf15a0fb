"""How a handler's answer reaches the client."""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.server import Server


def test_status_message_properties_and_body_pass(server: Server) -> None:
    reply = server.post(
        {"do": "answer", "code": 418, "message": "Short and stout", "properties": {"X-Pot": "tea"}, "body": "hot"}
    )
    assert (reply.status, reply.reason, reply.body) == (418, "Short and stout", b"hot")
    assert reply.headers["x-pot"] == "tea"


def test_no_content_type_is_made_up(server: Server) -> None:
    assert "content-type" not in server.post({"do": "answer", "body": "text"}).headers


def test_none_is_a_204_without_a_body(server: Server) -> None:
    reply = server.post({"do": "nothing"})
    assert (reply.status, reply.body) == (204, b"")


def test_an_exception_is_a_424_with_its_text(server: Server) -> None:
    reply = server.post({"do": "fail", "text": "the dog ate it"})
    assert reply.status == 424
    assert reply.json()["error"] == "the dog ate it"


def test_a_message_with_line_breaks_cannot_split_the_response(server: Server) -> None:
    reply = server.post({"do": "answer", "message": "one\r\nX-Evil: 1\r\n\r\nbody", "body": "fine"})
    assert (reply.status, reply.body) == (200, b"fine")
    assert "x-evil" not in reply.headers


@pytest.mark.parametrize("code", [99, 100, 199, 600, 1000, -1])
def test_a_status_that_http_has_not_is_a_502_that_names_it(server: Server, code: int) -> None:
    reply = server.post({"do": "answer", "code": code, "body": "lost"})
    assert reply.status == 502
    assert str(code) in reply.json()["message"]


@pytest.mark.parametrize(
    "properties",
    [
        {"Content-Length": "2"},
        {"content-length": "100000"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"X-A": "1\r\nContent-Length: 0"},
        {"bad name": "x"},
        {"": "x"},
        {"X-Control": "\x00\x1b"},
    ],
)
def test_no_property_can_break_the_framing(server: Server, properties: dict[str, str]) -> None:
    with closing(server.connect()) as connection:
        for _ in range(2):  # the second request shows that the connection is still in step
            order = {"do": "answer", "properties": properties, "body": "the whole body"}
            connection.request("POST", "/invocations", json.dumps(order))
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"the whole body")


def test_a_204_with_a_body_sends_none(server: Server) -> None:
    with closing(server.connect()) as connection:
        connection.request("POST", "/invocations", json.dumps({"do": "answer", "code": 204, "body": "stowaway"}))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
        connection.request("POST", "/invocations", json.dumps({"do": "answer", "body": "next"}))
        assert connection.getresponse().read() == b"next"


def test_a_refusal_without_a_body_gets_one(server: Server) -> None:
    reply = server.post({"do": "answer", "code": 507, "message": "no memory left"})
    assert reply.status == 507
    assert reply.json()["message"] == "no memory left"


def test_a_stream_arrives_piece_by_piece(server: Server, tmp_path: Path) -> None:
    order = {"do": "stream", "content_type": "application/jsonlines", "release": str(tmp_path / "release")}
    with closing(server.connect()) as connection:
        connection.request("POST", "/invocations", json.dumps(order))
        answer = connection.getresponse()
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert answer.headers["Content-Type"] == "application/jsonlines"
        assert answer.readline() == b"line 0\n"  # the handler has not gone on: it waits for the file
        (tmp_path / "release").touch()
        assert answer.read() == b"line 1\nline 2\n"


def test_an_http_1_0_client_gets_a_stream_without_chunks(server: Server) -> None:
    body = json.dumps({"do": "stream", "lines": 2}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /invocations HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.partition(b"\r\n\r\n")[2] == b"line 0\nline 1\n"


def broken_stream(server: Server, **order: object) -> bytes:
    """What a stream delivers before it breaks off; fails if it ends as if it were complete."""
    with closing(server.connect()) as connection:
        connection.request("POST", "/invocations", json.dumps({"do": "stream", "fail": "out of ink", **order}))
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead) as broken:
            answer.read()
        return broken.value.partial


def test_jsonlines_that_break_off_end_with_a_typed_line_and_without_the_last_chunk(server: Server) -> None:
    lines = broken_stream(server, content_type="application/jsonlines").splitlines()
    assert lines[:3] == [b"line 0", b"line 1", b"line 2"]
    assert json.loads(lines[3])["code"] == 424
    assert "out of ink" in json.loads(lines[3])["error"]


def test_the_typed_line_starts_on_a_line_of_its_own(server: Server) -> None:
    lines = broken_stream(server, content_type="application/jsonlines", line="no break", lines=1).splitlines()
    assert lines[0] == b"no break"
    assert json.loads(lines[1])["code"] == 424


def test_an_event_stream_that_breaks_off_ends_with_an_event(server: Server) -> None:
    body = broken_stream(server, content_type="text/event-stream", line="data: {}\n\n")
    last = body.decode().rstrip().rpartition("\n\n")[2]
    assert json.loads(last.removeprefix("data: "))["code"] == 424


def test_other_streams_that_break_off_hold_nothing_but_their_data(server: Server) -> None:
    assert broken_stream(server, content_type="text/plain") == b"line 0\nline 1\nline 2\n"


def test_a_failure_before_the_first_piece_is_a_424(server: Server) -> None:
    assert server.post({"do": "stream", "lines": 0, "fail": "no ink at all"}).status == 424


def test_a_client_that_goes_away_ends_its_stream_and_frees_the_group(server: Server, tmp_path: Path) -> None:
    with closing(server.connect()) as connection:
        order = {"do": "stream", "endless": True, "ended": str(tmp_path / "ended")}
        connection.request("POST", "/invocations", json.dumps(order))
        assert connection.getresponse().readline() == b"line 0\n"
    deadline = time.monotonic() + 30
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < deadline, "the handler's generator was not closed"
        time.sleep(0.02)
    assert server.post({"do": "answer", "body": "free"}).body == b"free"


def test_a_megabyte_passes_both_ways(server: Server) -> None:
    body = b"\xff" * 2**20
    reply = server.request("POST", "/invocations", body)
    assert reply.json()["content"] == [["data", "\xff" * 2**20]]
