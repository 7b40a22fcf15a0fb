from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from bloomery.errors import ProtocolError
from bloomery.protocol import whole
from bloomery.protocol.frames import (
    Dialect,
    Request,
    ResponseHead,
    decode_bytes,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

dialects = st.sampled_from(Dialect)
keys = st.text(min_size=1, max_size=40)
properties = st.dictionaries(keys, st.text(max_size=200), max_size=8)
contents = st.lists(st.tuples(st.none() | st.text(max_size=20), st.binary(max_size=2000)), max_size=6)
requests = st.builds(Request, properties, contents)
heads = st.builds(
    ResponseHead, st.integers(-(2**15), 2**15 - 1), st.text(max_size=80), properties, st.none() | contents
)


@given(requests, dialects, st.binary(max_size=20))
def test_a_request_that_is_here_in_whole_is_decoded_up_to_its_end(
    request: Request, dialect: Dialect, after: bytes
) -> None:
    frame = encode_request(request, dialect)
    assert whole.request(frame + after, dialect) == (request, len(frame))


@given(heads, dialects, st.binary(max_size=20))
def test_an_answer_that_is_here_in_whole_is_decoded_up_to_its_end(
    head: ResponseHead, dialect: Dialect, after: bytes
) -> None:
    frame = encode_response(head, dialect)
    assert whole.response(frame + after, dialect) == (head, len(frame))


@given(requests, heads, dialects, st.data())
def test_a_frame_that_is_cut_off_is_left_to_the_decoder_that_waits_for_the_rest(
    request: Request, head: ResponseHead, dialect: Dialect, data: st.DataObject
) -> None:
    asked, answered = encode_request(request, dialect), encode_response(head, dialect)
    assert whole.request(asked[: data.draw(st.integers(0, len(asked) - 1))], dialect) is None
    assert whole.response(answered[: data.draw(st.integers(0, len(answered) - 1))], dialect) is None


@given(st.binary(max_size=300) | st.lists(st.integers(-3, 6)).map(lambda n: struct.pack(f">{len(n)}h", *n)), dialects)
def test_whatever_is_decoded_at_one_go_is_what_the_piecemeal_decoder_makes_of_it(data: bytes, dialect: Dialect) -> None:
    if (asked := whole.request(data, dialect)) is not None:
        (request, _), rest = decode_bytes(decode_request(dialect), data)
        assert asked == (request, len(data) - len(rest))
    if (answered := whole.response(data, dialect)) is not None:
        head, rest = decode_bytes(decode_response(dialect), data)
        assert answered == (head, len(data) - len(rest))


def test_a_null_message_and_text_that_is_no_strict_utf8_are_left_to_the_piecemeal_decoder() -> None:
    null_message = struct.pack(">hihh", 200, -1, 0, 0)
    surrogate = encode_response(ResponseHead(200, "\ud800", {}, []))
    for frame in (null_message, surrogate):
        assert whole.response(frame) is None
        decode_bytes(decode_response(), frame)


def test_garbage_is_never_an_answer() -> None:
    for frame in (b"", b"\xff" * 40, struct.pack(">hihh", 200, 0, -5, 0), struct.pack(">hihh", 200, 0, 0, -5)):
        assert whole.response(frame) is None
        try:
            decode_bytes(decode_response(), frame)
        except ProtocolError:
            continue
        raise AssertionError(frame)
