"""Whatever a client sends: an answer that is HTTP or a closed connection, and a server that is none the worse."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st
from tests.support.generated import for_all, numbers
from tests.support.http_grammar import Sent, damaged_requests, requests
from tests.support.raw_http import RawReply, ask, exchange
from tests.support.server import Server
from tests.support.unharmed import unharmed

SANE = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


def is_answer(reply: RawReply | None, to: object, method: bytes = b"POST") -> bool:
    """A success, or a refusal that says why."""
    assert reply is not None, f"no answer to {to!r}"
    assert 200 <= reply.status <= 599
    if reply.status >= 400 and method != b"HEAD":
        document = json.loads(reply.body)
        error = document.get("error", document)  # OpenAI's clients and KServe's have their own forms
        assert error["message"] if isinstance(error, dict) else error, f"{reply.status} without a cause for {to!r}"
    assert b"Traceback" not in reply.body
    return True


def still_serves(server: Server) -> None:
    reply = ask(server.port, [SANE])
    assert reply is not None
    assert reply.status == 200
    assert json.loads(reply.body)["content"] == [["data", "hi"]]


@numbers(300, 5000)
def test_any_request_is_answered_and_never_with_a_500(laboratory: Server, count: int) -> None:
    def check(sent: Sent) -> None:
        reply = ask(laboratory.port, [sent.head(), sent.payload()], sent.method)
        assert is_answer(reply, sent, sent.method)
        assert reply is not None
        assert reply.status != 500, f"{reply.body!r} to {sent!r}"
        still_serves(laboratory)

    with unharmed(laboratory):
        for_all(requests(), check, count)


@numbers(250, 5000)
def test_a_damaged_request_is_answered_or_given_up_by_the_client_without_harm(laboratory: Server, count: int) -> None:
    """After damage nobody knows where the request ends, so the client closes without waiting for long."""

    def check(case: tuple[bytes, bytes]) -> None:
        method, data = case
        with exchange(laboratory.port, timeout=0.1) as connection:
            connection.send(data)
            try:
                reply = connection.reply(method)
            except TimeoutError:
                reply = None  # the server waits for the rest of what it took for a longer request
        if reply is not None:
            assert is_answer(reply, case, method)
        still_serves(laboratory)

    with unharmed(laboratory):
        for_all(damaged_requests(), check, count)


@numbers(100, 2000)
def test_a_client_that_leaves_in_the_middle_harms_nobody(laboratory: Server, count: int) -> None:
    def check(case: tuple[Sent, float, bool]) -> None:
        sent, part, abruptly = case
        data = sent.head() + sent.payload()
        with exchange(laboratory.port) as connection:
            connection.send(data[: int(part * len(data))])
            if abruptly:
                connection.reset()
        still_serves(laboratory)

    with unharmed(laboratory):
        for_all(st.tuples(requests(), st.floats(0, 1), st.booleans()), check, count)


@numbers(60, 1000)
def test_bytes_that_are_no_http_are_answered_400_or_hung_up_on(laboratory: Server, count: int) -> None:
    def check(data: bytes) -> None:
        reply = ask(laboratory.port, [data, b"\r\n\r\n\r\n\r\n"])
        assert reply is None or reply.status == 400, reply
        still_serves(laboratory)

    # A first byte that begins no method.
    garbage = st.binary(min_size=1, max_size=3000).map(lambda data: b"\x16" + data)
    with unharmed(laboratory):
        for_all(garbage, check, count)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nx-request-id: %s\r\n\r\n"
AMBIGUOUS = {
    "length and chunked": [b"Content-Length: %d", b"Transfer-Encoding: chunked"],
    "chunked and length": [b"Transfer-Encoding: chunked", b"Content-Length: %d"],
    "two lengths": [b"Content-Length: 0", b"Content-Length: %d"],
    "two lengths in one": [b"Content-Length: 0, %d"],
    "length with a sign": [b"Content-Length: +%d"],
    "length in hexadecimal": [b"Content-Length: 0x%x"],
    "length with a blank": [b"Content-Length : %d"],
    "length with an underscore": [b"Content-Length: 1_%d"],
    "length on a folded line": [b"Content-Length:", b" %d"],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "chunked is not the last": [b"Transfer-Encoding: chunked, identity"],
    "chunked twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "chunked behind a tab": [b"Transfer-Encoding:\tchunked", b"Content-Length: %d"],
    "chunked behind a vertical tab": [b"Transfer-Encoding: \x0bchunked", b"Content-Length: %d"],
    "chunked and a blank before the colon": [b"Transfer-Encoding : chunked", b"Content-Length: %d"],
    "chunked and a bare line feed": [b"X: y\nTransfer-Encoding: chunked", b"Content-Length: %d"],
    "a bare carriage return": [b"X: y\rTransfer-Encoding: chunked", b"Content-Length: %d"],
    "a header without a name": [b": x", b"Content-Length: %d"],
    "a nul in a name": [b"Transfer-Encoding\x00: chunked", b"Content-Length: %d"],
}


@pytest.mark.parametrize("framing", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
def test_a_request_with_two_possible_ends_is_refused_and_what_follows_it_is_never_run(
    laboratory: Server, framing: list[bytes], request: pytest.FixtureRequest
) -> None:
    """Where a proxy before us sees one request, we must not see two (RFC 9112, section 11.2)."""
    identifier = f"smuggled-{abs(hash(request.node.name))}".encode()
    body = b"0\r\n\r\n" + SMUGGLED % identifier
    lines = b"\r\n".join(line % len(body) if b"%" in line else line for line in framing)
    with exchange(laboratory.port) as connection:
        connection.send(b"POST /invocations HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n" + body)
        reply = connection.reply()
        assert reply is not None
        assert reply.status == 400
        assert connection.closed()
    still_serves(laboratory)
    assert identifier.decode() not in laboratory.log()


def test_pipelined_requests_are_answered_in_their_order(laboratory: Server) -> None:
    texts = [b"one", b"two", b"three"]
    with exchange(laboratory.port) as connection:
        connection.send(
            b"".join(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(t), t) for t in texts
            )
        )
        for text in texts:
            reply = connection.reply()
            assert reply is not None
            assert json.loads(reply.body)["content"] == [["data", text.decode()]]


@pytest.mark.parametrize("expectation", [b"100-continue", b"nonsense", b"", b"100-continue, x"])
def test_whatever_a_client_expects_it_is_answered(laboratory: Server, expectation: bytes) -> None:
    with exchange(laboratory.port) as connection:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nExpect: %s\r\nContent-Length: 2\r\n\r\n"
        connection.send(head % expectation + b"hi")
        assert is_answer(connection.reply(), expectation)


def test_a_hundred_headers_are_taken_and_ten_thousand_refused(laboratory: Server) -> None:
    def with_headers(count: int) -> RawReply | None:
        lines = b"".join(b"X-%d: v\r\n" % number for number in range(count))
        return ask(laboratory.port, [b"GET /invocations HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"])

    few, many = with_headers(100), with_headers(10_000)
    assert few is not None
    assert few.status == 200
    assert many is None or many.status in (400, 431)
    still_serves(laboratory)


def test_a_form_of_more_fields_than_a_frame_can_hold_is_a_400(laboratory: Server) -> None:
    body = b"&".join([b"a="] * 40_000)
    reply = laboratory.request("POST", "/invocations", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status == 400
    assert "40000" in reply.json()["message"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_is_not_compressed_as_it_says_is_a_400(laboratory: Server, coding: str) -> None:
    reply = laboratory.request("POST", "/invocations", b"\x00 not compressed", {"Content-Encoding": coding})
    assert reply.status == 400
    assert coding in reply.body.decode()


def test_the_name_of_a_forms_field_is_text_whatever_bytes_it_has(laboratory: Server) -> None:
    reply = laboratory.request(
        "POST", "/invocations", b"%ff=%fe", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert reply.json()["content"] == [["\ufffd", "\xfe"]]


@pytest.mark.parametrize(
    "header",
    [b"no header", b"Content-Encoding: gzip", b"Content-Transfer-Encoding: rot13"],
)
def test_a_part_that_cannot_be_read_is_a_400_that_says_why(laboratory: Server, header: bytes) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\n%s\r\n\r\nx\r\n--B--\r\n' % header
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    reply = laboratory.request("POST", "/invocations", body, kind)
    assert (reply.status, reply.json()["type"]) == (400, "BadRequestException")
    assert header.decode().rpartition(" ")[2] in reply.json()["message"]
