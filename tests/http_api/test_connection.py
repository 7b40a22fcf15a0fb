"""What a connection answers when the bytes on it are no HTTP, or no longer."""

from __future__ import annotations

import json

import pytest
from tests.support.raw_http import ask, exchange
from tests.support.server import Server

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "garbage",
    [b"garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", HEAD + b"no header\r\n\r\n"],
)
def test_what_is_no_request_is_refused_with_a_document_of_ours(server: Server, garbage: bytes) -> None:
    reply = ask(server.port, [garbage])
    assert reply is not None
    assert reply.status == 400
    document = json.loads(reply.body)
    assert (document["code"], document["type"]) == (400, "BadRequestException")
    assert "not an HTTP request" in document["message"]
    assert reply.headers["server"] == "bloomery"
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize("coding", [b"", b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n"])
@pytest.mark.parametrize("body", [b"zz\r\nX\r\n0", b"5\r\nlonger\r\n0", b"1\r\nX\r\n0\r\n: bad"])
def test_a_body_that_goes_wrong_after_its_head_was_read_is_a_400(server: Server, coding: bytes, body: bytes) -> None:
    with exchange(server.port) as connection:
        connection.send(HEAD + b"Transfer-Encoding: chunked\r\n%s\r\n" % coding)
        server.ping()  # by then the head has been read
        connection.send(body + b"\r\n\r\n")
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 400
        assert json.loads(reply.body)["message"].startswith("the body cannot be read: ")
        assert connection.closed()


@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_multipart_body_that_cannot_be_unpacked_is_a_400_too(server: Server, framing: bytes) -> None:
    with exchange(server.port) as connection:
        connection.send(HEAD + framing + b"Content-Type: multipart/form-data; boundary=x\r\n")
        connection.send(b"Content-Encoding: deflate\r\n\r\n")
        server.ping()  # by then somebody waits for the first line of the body
        connection.send(b"\xf2\xad" if b"Length" in framing else b"2\r\n\xf2\xad\r\n0\r\n\r\n")
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 400
        assert json.loads(reply.body)["message"].startswith("the body cannot be read: ")


def test_garbage_behind_a_request_does_not_spoil_its_answer(server: Server) -> None:
    with exchange(server.port) as connection:
        connection.send(HEAD + b"Content-Length: 2\r\n\r\nhi")
        server.ping()
        connection.send(b"garbage\r\n\r\n")
        first, second = connection.reply(), connection.reply()
        assert first is not None
        assert second is not None
        assert (first.status, second.status) == (200, 400)
        assert connection.closed()
