"""Whatever a worker puts into its answer, HTTP can carry what comes out."""

from __future__ import annotations

import json
import string

from hypothesis import given
from hypothesis import strategies as st

from bloomery.http_api.sanitise import completed_body, head, reason, stream_failure

OURS = {"connection", "transfer-encoding", "content-length", "keep-alive", "upgrade", "te", "trailer", "x-request-id"}
texts = st.text() | st.text(alphabet="\r\n\x00\x0b\x7f\x85\u2028\ud800 aé")
names = texts | st.sampled_from(sorted(OURS | {"Content-Type", "X-Ok", "x-bloomery-seed", "Connection"}))


@given(texts)
def test_a_reason_is_one_line_of_printable_ascii(message: str) -> None:
    line = reason(message)
    assert line is None or (line.isascii() and line.isprintable() and line == line.strip() and 0 < len(line) <= 200)


@given(st.integers(-40000, 40000), texts, st.dictionaries(names, texts))
def test_every_head_is_sendable(code: int, message: str, properties: dict[str, str]) -> None:
    safe = head(code, message, properties)
    assert 200 <= safe.status <= 599
    assert safe.status == (code if 200 <= code <= 599 else 502)
    for name, value in safe.headers:
        assert set(name) <= set(string.ascii_letters + string.digits + "!#$%&'*+.^_`|~-")
        assert not any(ord(character) < 32 or ord(character) == 127 for character in value)
        value.encode()
    lower = [name.lower() for name, _ in safe.headers]
    assert len(lower) == len(set(lower))
    assert not OURS & set(lower)
    assert not any(name.startswith("x-bloomery-") for name in lower)


@given(texts, texts, st.booleans())
def test_a_streams_last_record_is_one_json_document(content_type: str, message: str, after_newline: bool) -> None:
    record = stream_failure("application/jsonlines; " + content_type, 424, message, after_newline)
    assert record is not None
    assert record.endswith(b"\n")
    assert record.startswith(b"{") == after_newline
    assert record.strip().count(b"\n") == 0
    assert json.loads(record)["code"] == 424


def test_a_status_out_of_range_is_a_502_that_says_so() -> None:
    safe = head(1000, "OK", {"Content-Type": "text/plain"})
    assert safe.status == 502
    assert safe.explanation is not None
    assert "1000" in json.loads(safe.explanation)["message"]
    assert safe.headers == [("Content-Type", "application/json")]


def test_a_line_break_in_a_value_cannot_start_another_header() -> None:
    assert head(200, "OK", {"X-A": "1\r\nSet-Cookie: a=b"}).headers == [("X-A", "1 Set-Cookie: a=b")]


def test_a_header_that_cannot_be_sent_is_left_out_and_named() -> None:
    safe = head(200, "OK", {"bad name": "1", "X-Long": "v" * 9000, "X-Good": "1"})
    assert safe.headers == [("X-Good", "1")]
    assert safe.dropped == ("bad name", "X-Long")


def test_a_head_of_more_than_clients_take_is_cut_to_what_they_do() -> None:
    safe = head(200, "OK", {"X" * 9000: "1", **{f"X-{number}": "v" * 1000 for number in range(200)}})
    assert 20 < len(safe.headers) < 40
    assert len(safe.headers) + len(safe.dropped) == 201
    assert len(head(200, "OK", {f"X-{number}": "v" for number in range(200)}).headers) == 90


def test_of_two_spellings_of_a_header_the_later_wins() -> None:
    assert head(200, "OK", {"content-type": "a/b", "Content-Type": "c/d"}).headers == [("Content-Type", "c/d")]


def test_a_204_has_neither_body_nor_its_type() -> None:
    safe = head(204, "No content", {"Content-Type": "text/plain"})
    assert not safe.has_body
    assert safe.headers == []


def test_a_refusal_without_a_body_gets_its_message_as_one() -> None:
    body = completed_body(507, "out of memory", None)
    assert body is not None
    assert json.loads(body) == {"code": 507, "type": "HandlerException", "message": "out of memory"}


def test_a_refusal_with_an_empty_body_keeps_it() -> None:
    assert completed_body(404, "no", b"") == b""


def test_an_event_stream_ends_with_a_data_line() -> None:
    assert stream_failure("text/event-stream", 503, "gone", True) == b'data: {"error": "gone", "code": 503}\n\n'


def test_other_formats_get_no_record() -> None:
    assert stream_failure("text/plain", 424, "gone", True) is None
