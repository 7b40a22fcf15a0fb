from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloomery.errors import ProtocolError
from bloomery.protocol.frames import (
    Chunk,
    Dialect,
    Request,
    ResponseHead,
    decode_bytes,
    decode_chunk,
    decode_pairs,
    decode_request,
    decode_response,
    encode_chunk,
    encode_request,
    encode_response,
    encode_string,
    read_async,
    read_blocking,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_frames.json").read_text())
DIALECTS = {"h": Dialect.INT16, "i": Dialect.INT32}
RECORDED = [
    pytest.param(DIALECTS[GOLDEN[version]["strlen"]], case, id=f"{version}-{case['name']}")
    for version in ("0.23.0", "0.27.0", "0.36.0")
    for case in GOLDEN[version]["cases"]
]

dialects = st.sampled_from(Dialect)
keys = st.text(min_size=1, max_size=40)
properties = st.dictionaries(keys, st.text(max_size=200), max_size=8)
contents = st.lists(st.tuples(st.none() | st.text(max_size=20), st.binary(max_size=2000)), max_size=6)
requests = st.builds(Request, properties, contents)
heads = st.builds(
    ResponseHead, st.integers(-(2**15), 2**15 - 1), st.text(max_size=80), properties, st.none() | contents
)


@pytest.mark.parametrize(("dialect", "case"), RECORDED)
def test_recorded_requests_decode_and_encode_to_the_same_bytes(dialect: Dialect, case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["request_hex"])
    (request, detected), rest = decode_bytes(decode_request(), data)
    assert (detected, rest) == (dialect, b"")
    assert {"handler": "handle", **case["props"]} == request.properties or "batch_size" in request.properties
    assert encode_request(request, dialect) == data


@pytest.mark.parametrize(("dialect", "case"), RECORDED)
def test_recorded_responses_decode_and_encode_to_the_same_bytes(dialect: Dialect, case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["response_hex"])
    head, rest = decode_bytes(decode_response(dialect), data)
    assert (head.code, head.message, head.properties) == (case["code"], case["message"], case["response_properties"])
    encoded = encode_response(head, dialect)
    while head.content is None and rest:
        chunk, rest = decode_bytes(decode_chunk(), rest)
        encoded += encode_chunk(chunk)
    assert encoded == data


@given(requests, dialects, st.binary(max_size=20))
def test_a_request_survives_the_wire_in_either_dialect(request: Request, dialect: Dialect, after: bytes) -> None:
    (decoded, _), rest = decode_bytes(decode_request(dialect), encode_request(request, dialect) + after)
    assert (decoded, rest) == (request, after)


@given(requests.filter(lambda request: bool(request.properties)), dialects)
def test_the_dialect_is_detected_from_any_request_with_a_property(request: Request, dialect: Dialect) -> None:
    (decoded, detected), _ = decode_bytes(decode_request(), encode_request(request, dialect))
    assert (decoded, detected) == (request, dialect)


@given(heads, dialects, st.binary(max_size=20))
def test_a_response_survives_the_wire_in_either_dialect(head: ResponseHead, dialect: Dialect, after: bytes) -> None:
    decoded, rest = decode_bytes(decode_response(dialect), encode_response(head, dialect) + after)
    assert (decoded, rest) == (head, after)


@given(st.binary(max_size=2000), st.booleans(), st.binary(max_size=20))
def test_a_chunk_survives_the_wire(data: bytes, last: bool, after: bytes) -> None:
    assert decode_bytes(decode_chunk(), encode_chunk(Chunk(data, last)) + after) == (Chunk(data, last), after)


@given(requests, dialects, st.data())
def test_a_truncated_request_is_a_protocol_error(request: Request, dialect: Dialect, data: st.DataObject) -> None:
    encoded = encode_request(request, dialect)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ProtocolError):
        decode_bytes(decode_request(dialect), encoded[:cut])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_decode_or_are_a_protocol_error(data: bytes) -> None:
    for decoder in (decode_request(), decode_response(Dialect.INT16), decode_response(Dialect.INT32), decode_chunk()):
        try:
            decode_bytes(decoder, data)
        except ProtocolError:
            pass


@given(st.integers(-(2**31), -1).filter(lambda length: length != -1))
def test_a_negative_string_length_is_a_protocol_error_that_names_it(length: int) -> None:
    frame = struct.pack(">hi", 1, length)
    with pytest.raises(ProtocolError, match=f"claims {length} bytes"):
        decode_bytes(decode_request(Dialect.INT32), frame)


@given(st.integers(-(2**31), -1))
def test_a_negative_part_length_is_a_protocol_error_that_names_the_part(length: int) -> None:
    frame = struct.pack(">hh", 0, 1) + encode_string("data", Dialect.INT32) + struct.pack(">i", length)
    with pytest.raises(ProtocolError, match=f"'data' claims {length} bytes"):
        decode_bytes(decode_request(), frame)


def test_a_negative_count_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="claims -2 entries"):
        decode_bytes(decode_request(), struct.pack(">h", -2))


def test_a_chunk_flag_that_is_neither_0_nor_1_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="more=2"):
        decode_bytes(decode_chunk(), struct.pack(">bi", 2, 0))


def test_a_property_without_a_name_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="no name"):
        decode_bytes(decode_request(Dialect.INT16), struct.pack(">hhh", 1, -1, 0))


def test_a_string_that_is_not_utf8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="not UTF-8"):
        decode_bytes(decode_request(Dialect.INT16), struct.pack(">hh", 1, 1) + b"\xff")


def test_a_string_too_long_for_16_bits_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProtocolError, match="40000 bytes"):
        encode_string("x" * 40000, Dialect.INT16)


def test_more_parts_than_a_frame_can_count_are_refused_before_they_are_sent() -> None:
    with pytest.raises(ProtocolError, match="40000 content parts"):
        encode_response(ResponseHead(200, "OK", {}, [(None, b"")] * 40000))


@given(properties, dialects)
def test_counted_pairs_survive_the_wire(pairs: dict[str, str], dialect: Dialect) -> None:
    encoded = encode_request(Request(pairs, []), dialect)[:-2]
    assert decode_bytes(decode_pairs(dialect), encoded) == (pairs, b"")


@given(requests, dialects)
def test_the_blocking_reader_asks_for_exactly_what_the_frame_holds(request: Request, dialect: Dialect) -> None:
    data = memoryview(encode_request(request, dialect))
    position = 0

    def receive(count: int) -> bytes:
        nonlocal position
        position += count
        assert position <= len(data)
        return bytes(data[position - count : position])

    assert read_blocking(decode_request(dialect), receive)[0] == request
    assert position == len(data)


async def test_the_asynchronous_reader_decodes_what_the_blocking_one_does() -> None:
    request = Request({"handler": "handle", "a": "é"}, [("data", b"body"), (None, b"")])
    data = encode_request(request)
    position = 0

    async def receive(count: int) -> bytes:
        nonlocal position
        position += count
        return data[position - count : position]

    assert await read_async(decode_request(), receive) == (request, Dialect.INT32)
