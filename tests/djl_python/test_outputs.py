from __future__ import annotations

import datetime
import io
import json
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from bloomery.protocol.frames import (
    Chunk,
    Dialect,
    ResponseHead,
    decode_bytes,
    decode_chunk,
    decode_pairs,
    decode_response,
)
from djl_python import Output
from djl_python.np_util import from_nd_list


def only_part(output: Output) -> bytes:
    (value,) = output.content.values
    return bytes(value)


def test_an_output_is_200_ok_by_default() -> None:
    assert (Output().code, Output().message) == (200, "OK")


def test_calls_can_be_chained() -> None:
    output = Output().set_code(201).set_message("M").add_property("a", 1).add("x").finalize(print)
    assert (output.code, output.message, output.get_properties(), output.get_property("A")) == (201, "M", {"a": 1}, 1)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [("é", "é".encode()), (b"\x00", b"\x00"), (bytearray(b"x"), b"x"), ({"a": 1}, b'{\n  "a":1\n}'), (7, b"7")],
)
def test_text_bytes_and_everything_else_are_added_each_in_its_way(value: object, encoded: bytes) -> None:
    assert only_part(Output().add(value)) == encoded


def test_json_is_indented_unescaped_and_knows_numpy_and_dates() -> None:
    value = {"é": np.float32(0.5), "a": np.arange(2), "d": datetime.datetime(2024, 1, 2, 3, 4), "n": None}
    assert only_part(Output().add_as_json(value)).decode() == (
        '{\n  "é":0.5,\n  "a":[\n    0,\n    1\n  ],\n  "d":"2024-01-02 03:04:00",\n  "n":null\n}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [np.float64("nan")]])
def test_numbers_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        Output().add_as_json(value)


def test_values_that_json_lacks_are_refused() -> None:
    with pytest.raises(TypeError, match="type object is not JSON serializable"):
        Output().add_as_json(object())


def test_arrays_are_added_as_ndlist_and_npz() -> None:
    array = np.ones((2, 3), dtype=np.int64)
    np.testing.assert_array_equal(from_nd_list(only_part(Output().add_as_numpy([array])))[0], array)
    np.testing.assert_array_equal(np.load(io.BytesIO(only_part(Output().add_as_npz([array]))))["arr_0"], array)


def test_text_has_its_own_method() -> None:
    assert only_part(Output().add_as_string("é")) == "é".encode()


def test_a_batch_index_is_part_of_the_key() -> None:
    output = Output().add("x", batch_index=1).add("y", key="k", batch_index=2)
    assert output.content.get_keys() == ["batch_1.", "batch_2.k"]


def test_a_key_that_is_no_text_becomes_text_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    output = Output().add("x", key=3)  # type: ignore[arg-type]
    assert output.content.get_keys() == ["3"]
    assert "should be str, not int" in caplog.text


def test_an_error_is_424_with_a_json_body_and_replaces_what_was_added() -> None:
    output = Output().add("half an answer").error("went wrong")
    assert (output.code, output.message) == (424, "prediction failure")
    assert output.get_property("Content-Type") == "application/json"
    body = json.loads(only_part(output))
    assert body == {"code": 424, "message": "prediction failure", "error": "went wrong"}


def test_an_errors_code_and_message_can_be_chosen() -> None:
    body = json.loads(only_part(Output().error(ValueError("v"), 507, "no memory")))
    assert body == {"code": 507, "message": "no memory", "error": "v"}


def test_finalizers_run_once_in_order_and_survive_a_failing_one(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    output = Output().finalize(seen.append, 1).finalize(int, "x").finalize(seen.append, 2)
    output.execute_finalize()
    output.execute_finalize()
    assert seen == [1, 2]
    assert "a finalize function failed" in caplog.text


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_binary_payload_is_in_the_peers_dialect(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "dialect", dialect)
    payload = Output.binary_encode({"data": "é", "last": True, "step_token_num": 1})
    pairs, rest = decode_bytes(decode_pairs(dialect), payload)
    assert (pairs, rest) == ({"data": "é", "last": "True", "step_token_num": "1"}, b"")


def sent(output: Output) -> tuple[ResponseHead, list[Chunk]]:
    """What arrives at the other end of the socket."""
    near, far = socket.socketpair()
    with far:
        with near:
            output.send(near)
        rest = far.makefile("rb").read()
    head, rest = decode_bytes(decode_response(Output.dialect), rest)
    chunks = []
    while rest:
        chunk, rest = decode_bytes(decode_chunk(), rest)
        chunks.append(chunk)
    return head, chunks


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_answer_can_be_sent_in_either_dialect(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "dialect", dialect)
    output = Output(201, "M").add_property("n", 1).add("x", "k")
    assert sent(output) == (ResponseHead(201, "M", {"n": "1"}, [("k", b"x")]), [])
    assert decode_bytes(decode_response(dialect), output.encode())[0] == sent(output)[0]


def test_a_stream_is_sent_piece_by_piece_and_ends_with_its_error() -> None:
    def pieces() -> Iterator[str]:
        yield "a"
        raise ValueError("broke")

    head, chunks = sent(Output().add_stream_content(pieces(), output_formatter=None))
    assert head.content is None
    assert chunks == [Chunk(b"a", last=False), Chunk(b"broke", last=True)]


def test_a_lone_surrogate_becomes_jsons_own_escape() -> None:
    assert json.loads(only_part(Output().add_as_json({"a": "\udcff"}))) == {"a": "\udcff"}


def test_the_text_of_an_output_holds_no_values_of_its_content() -> None:
    text = str(Output(201, "M").add("a secret answer"))
    assert text.startswith("201 M")
    assert "secret" not in text


def test_every_method_takes_the_keywords_that_djlserving_gave_its_parameters() -> None:
    out = Output(code=201, message="made").set_code(code=202).set_message(message="taken")
    out.add_property(key="x-name", val="y")
    out.add(value="text", key="a").add_as_json(val={"n": 1}, key="b", batch_index=0)
    out.add_as_numpy(np_list=[np.ones(2)], key="c").add_as_npz(np_list=[np.ones(2)], key="d")
    out.add_stream_content(stream_content=iter(["s"]), output_formatter=None)
    assert out.content.get_keys() == ["a", "batch_0.b", "c", "d"]
    assert (out.code, out.message, out.properties) == (202, "taken", {"x-name": "y"})
    assert out.error(error="e", code=400, message="m").code == 400
