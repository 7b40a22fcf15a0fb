"""A whole answer is the same, whether it is written at one go (a plain POST) or by aiohttp (anything else)."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from tests.support.raw_http import exchange
from tests.support.server import Reply, Server

ID = {"x-request-id": "the-same"}


def asked(server: Server, method: str, order: Mapping[str, object], **headers: str) -> Reply:
    return server.request(method, "/invocations", json.dumps({"do": "answer", **order}), {**ID, **headers})


def without_date(reply: Reply) -> Reply:
    assert reply.headers["date"].endswith(" GMT")
    return Reply(
        reply.status, reply.reason, {k: v for k, v in sorted(reply.headers.items()) if k != "date"}, reply.body
    )


@pytest.mark.parametrize(
    "order",
    [
        {"body": "text"},
        {"body": ""},
        {"body": "x" * 200_000},
        {"code": 418, "message": "Short and stout", "body": "tea"},
        {"code": 299, "message": "", "body": "no phrase"},
        {"code": 500},
        {"code": 204},
        {"code": 304},
        {"body": "{}", "properties": {"Content-Type": "application/json; charset=utf-8", "X-One": "1", "x-two": "2"}},
        {"body": "a", "properties": {"Cache-Control": "max-age=5"}},
        {"body": "a", "properties": {"pragma": "mine"}},
        {"body": "a", "properties": {"Expires": "0", "X-Request-Id": "forged", "Server": "forged", "Date": "forged"}},
        {"body": "a", "properties": {"X-Umlaut": "größer", "X-Lines": "one\r\ntwo: 2"}},
    ],
)
def test_a_plain_answer_is_the_one_that_aiohttp_would_write(server: Server, order: dict[str, object]) -> None:
    plain, other = asked(server, "POST", order), asked(server, "PUT", order)
    assert without_date(plain) == without_date(other)
    assert plain.headers["x-request-id"] == "the-same"
    assert plain.headers["server"] == "bloomery"


def test_a_connection_stays_open_until_the_client_wants_it_closed(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    with exchange(server.port) as connection:
        for _ in range(3):
            connection.send(head + b"\r\nhi")
            reply = connection.reply()
            assert reply is not None
            assert "connection" not in reply.headers
        connection.send(head + b"Connection: close\r\n\r\nhi")
        reply = connection.reply()
        assert reply is not None
        assert reply.headers["connection"] == "close"
        assert connection.closed()


def test_an_older_client_gets_its_answer_and_the_end_of_the_connection(server: Server) -> None:
    with exchange(server.port) as connection:
        connection.send(b"POST /invocations HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 200
        assert connection.closed()


def test_requests_sent_at_once_are_answered_in_their_order(server: Server) -> None:
    orders = [json.dumps({"do": "answer", "body": f"number {number}"}).encode() for number in range(5)]
    with exchange(server.port) as connection:
        connection.send(
            b"".join(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(order), order)
                for order in orders
            )
        )
        for number in range(5):
            reply = connection.reply()
            assert reply is not None
            assert reply.body == b"number %d" % number


def test_a_head_request_has_the_headers_without_the_body(server: Server) -> None:
    reply = asked(server, "HEAD", {"body": "unseen"})
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["server"] == "bloomery"
