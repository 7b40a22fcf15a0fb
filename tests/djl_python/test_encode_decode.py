from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from djl_python import Input, Output
from djl_python.encode_decode import decode, encode
from djl_python.np_util import from_nd_list, to_nd_list
from djl_python.test_model import extract_output_as_npz

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def npz(array: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    return file.getvalue()


def body(data: bytes, key: str = "data") -> Input:
    inputs = Input()
    inputs.content.add(key, bytearray(data))
    return inputs


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        (None, b"", {"inputs": ""}),
        (None, b'{"inputs": "x"}', {"inputs": "x"}),
        ("application/json; charset=utf-8", b'["x"]', ["x"]),
        ("text/plain", "é".encode(), {"inputs": ["é"]}),
        ("text/csv", b"inputs\na\nb\n", {"inputs": ["a", "b"]}),
        ("text/csv", b"question,context\nq,c\n", {"inputs": [{"question": "q", "context": "c"}]}),
        ("audio/wav", b"RIFF", {"inputs": bytearray(b"RIFF")}),
        ("application/x-www-form-urlencoded", b"a=b", {"inputs": "a=b"}),
        ("application/octet-stream", b"\0", {"inputs": bytearray(b"\0")}),
        ("Application/JSON", b"1", 1),
    ],
)
def test_a_body_is_decoded_as_its_content_type_says(content_type: str | None, data: bytes, expected: object) -> None:
    assert decode(body(data), content_type) == expected


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("tensor/ndlist", to_nd_list([ARRAY])),
        ("tensor/npz", npz(ARRAY)),
        ("application/x-npy", to_nd_list([ARRAY])),
        ("application/x-npy", npy(ARRAY)),
    ],
)
def test_arrays_are_decoded(content_type: str, data: bytes) -> None:
    (array,) = decode(body(data), content_type)["inputs"]
    np.testing.assert_array_equal(array, ARRAY)


def test_an_image_is_decoded() -> None:
    assert decode(body(png()), "image/png")["inputs"].size == (3, 2)


def test_a_part_is_decoded_by_its_key() -> None:
    assert decode(body(b"1", key="other"), "application/json", key="other") == 1
    assert decode(body(b"inputs\nx\n", key="other"), "text/csv", key="other") == {"inputs": ["x"]}


def test_csv_without_headers_is_an_array_of_numbers() -> None:
    array = decode(body(b"1,2\n3,4\n"), "text/csv", require_csv_headers=False)
    np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


@pytest.mark.parametrize("data", [b"1,2\n3,4\n", b""])
def test_csv_of_texts_needs_a_header_that_names_its_columns(data: bytes) -> None:
    with pytest.raises(ValueError, match="must name question, context, inputs"):
        decode(body(data), "text/csv")


def test_csv_of_numbers_refuses_texts() -> None:
    with pytest.raises(ValueError, match="cells that are no numbers"):
        decode(body(b"1,x\n"), "text/csv", require_csv_headers=False)


def encoded(prediction: object, accept: str | None, key: str | None = None) -> tuple[bytes, str]:
    output = Output()
    encode(output, prediction, accept, key)
    assert output.content.get_keys() == [key]
    return bytes(output.content.value_at(0)), output.get_property("content-type")


@pytest.mark.parametrize("accept", [None, "", "application/json", "*/*"])
def test_a_prediction_is_json_unless_told_otherwise(accept: str | None) -> None:
    data, content_type = encoded([{"a": np.float32(0.5)}], accept, key="k")
    assert (json.loads(data), content_type) == ([{"a": 0.5}], "application/json")


@pytest.mark.parametrize(
    ("prediction", "lines"),
    [([{"a": 1, "b": "x,y"}], ["a,b", '1,"x,y"']), ([[1, 2], [3, 4]], ["1,2", "3,4"]), ([1, 2], ["1", "2"])],
)
def test_a_prediction_as_csv(prediction: object, lines: list[str]) -> None:
    data, content_type = encoded(prediction, "text/csv")
    assert (data.decode().splitlines(), content_type) == (lines, "text/csv")


def test_a_prediction_as_text_and_as_bytes() -> None:
    assert encoded("é", "text/plain") == ("é".encode(), "text/plain")
    assert encoded(b"\x89PNG", "image/png") == (b"\x89PNG", "image/png")


def test_a_prediction_as_arrays() -> None:
    data, content_type = encoded([ARRAY], "tensor/ndlist")
    np.testing.assert_array_equal(from_nd_list(data)[0], ARRAY)
    assert content_type == "tensor/ndlist"
    output = Output()
    encode(output, [ARRAY], "tensor/npz")
    np.testing.assert_array_equal(extract_output_as_npz(output)[0], ARRAY)
    assert output.get_property("content-type") == "tensor/npz"
