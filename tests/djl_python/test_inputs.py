from __future__ import annotations

import io
import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloomery.errors import ProtocolError
from bloomery.protocol.frames import ContentPart, Request
from djl_python import Input
from djl_python.np_util import to_nd_list


def input_of(*content: ContentPart, **properties: str) -> Input:
    named = {name.replace("_", "-"): value for name, value in properties.items()}
    return Input.from_request(Request(named, list(content)))


def test_properties_are_found_in_any_case() -> None:
    inputs = input_of(Content_Type="text/plain")
    assert inputs.get_property("content-type") == "text/plain"
    assert inputs.get_property("CONTENT-TYPE") == "text/plain"
    assert inputs.get_property("other") is None
    assert inputs.get_properties() == {"Content-Type": "text/plain"}


def test_the_handler_property_is_the_function_name() -> None:
    assert input_of(handler="other").get_function_name() == "other"


def test_an_input_without_parts_is_empty_and_its_data_is_none() -> None:
    inputs = input_of()
    assert inputs.is_empty()
    readers = (inputs.get_as_bytes, inputs.get_as_string, inputs.get_as_json, inputs.get_as_numpy, inputs.get_as_csv)
    assert [read() for read in readers] == [None] * 5


def test_an_empty_body_is_a_part() -> None:
    inputs = input_of(("data", b""))
    assert not inputs.is_empty()
    assert inputs.get_as_bytes() == b""


def test_the_part_named_data_is_the_body() -> None:
    assert input_of(("q", b"1"), ("data", b"body")).get_as_bytes() == bytearray(b"body")


def test_the_first_part_is_the_body_when_none_is_named_data() -> None:
    assert input_of((None, b"first"), ("other", b"second")).get_as_string() == "first"


def test_a_part_is_found_by_its_exact_key() -> None:
    inputs = input_of(("data", b"body"), ("q", b"1"))
    assert inputs.get_as_string("q") == "1"
    assert inputs.contains_key("q")
    assert not inputs.contains_key("Q")


def test_a_missing_part_is_a_key_error_with_djlservings_words() -> None:
    with pytest.raises(KeyError, match="requested data for key:q is not found!"):
        input_of(("data", b"")).get_as_bytes("q")


def test_bytes_are_a_bytearray() -> None:
    assert type(input_of(("data", b"x")).get_as_bytes()) is bytearray


def test_json_is_parsed() -> None:
    assert input_of(("data", '{"a": "é"}'.encode())).get_as_json() == {"a": "é"}


def test_csv_rows_are_dictionaries() -> None:
    assert input_of(("data", b"a,b\n1,2\n3,4\n")).get_as_csv() == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_numpy_reads_ndlist_and_npz() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = io.BytesIO()
    np.savez(file, array)
    for data in (to_nd_list([array]), file.getvalue()):
        (read,) = input_of(("data", data)).get_as_numpy() or []
        np.testing.assert_array_equal(read, array)


def test_an_npz_with_pickled_objects_is_refused() -> None:
    file = io.BytesIO()
    np.savez(file, np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        input_of(("data", file.getvalue())).get_as_npz()


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        ("application/json; charset=utf-8", b"[1]", [1]),
        ("text/plain", b"x", "x"),
        ("text/csv", b"a\n1", "a\n1"),
        ("application/octet-stream", b"x", bytearray(b"x")),
        (None, b"x", bytearray(b"x")),
    ],
)
def test_data_is_parsed_as_its_content_type_says(content_type: str | None, data: bytes, expected: object) -> None:
    properties = {} if content_type is None else {"Content_Type": content_type}
    assert input_of(("data", data), **properties).get_data() == expected


def test_a_request_that_was_not_joined_is_its_own_batch() -> None:
    inputs = input_of(("data", b"x"))
    assert not inputs.is_batch()
    assert inputs.get_batch_size() == 1
    assert inputs.get_batches() == [inputs]


@pytest.mark.parametrize("width", [1, 3])
def test_joined_requests_are_taken_apart(width: int) -> None:
    first, second = f"{0:0{width}}", f"{1:0{width}}"
    request = Request(
        {"handler": "handle", "batch_size": "2", f"batch_{first}.A": "x", f"batch_{second}.A": "y"},
        [(f"batch_{first}.data", b"0"), (f"batch_{second}.data", b"1"), (f"batch_{second}.k.v", b"2")],
    )
    items = Input.from_request(request).get_batches()
    assert [item.get_properties() for item in items] == [{"A": "x"}, {"A": "y"}]
    assert [item.get_as_string() for item in items] == ["0", "1"]
    assert items[1].get_as_string("k.v") == "2"


def test_a_batch_entry_beyond_the_size_is_refused() -> None:
    request = Request({"batch_size": "1"}, [("batch_001.data", b"")])
    with pytest.raises(ValueError, match=r"'batch_001\.data' is beyond batch_size 1"):
        Input.from_request(request).get_batches()


# --- a connection

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_frames.json").read_text())
RECORDED = [
    pytest.param(case, id=f"{version}-{case['name']}")
    for version, recording in GOLDEN.items()
    if version != "source"
    for case in recording["cases"]
]


def read_from(data: bytes) -> Input:
    """The input that ``read`` makes of these bytes, after which the peer closes the connection."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        inputs = Input()
        inputs.read(near)
        assert not near.recv(1)  # it has taken its own frame, all of it
        return inputs


@pytest.mark.parametrize("case", RECORDED)
def test_a_recorded_request_is_read_from_a_connection(case: dict[str, Any]) -> None:
    inputs = read_from(bytes.fromhex(case["request_hex"]))
    assert inputs.get_properties() == {"handler": "handle", **case["props"]} or inputs.is_batch()
    assert inputs.get_function_name() == inputs.get_property("handler")
    assert inputs.get_content().size() == len(case["content"])


def test_a_connection_that_ends_within_a_request_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="closed the connection"):
        read_from(bytes.fromhex(GOLDEN["0.27.0"]["cases"][1]["request_hex"])[:-1])


def test_the_text_of_an_input_holds_no_values_of_its_content() -> None:
    text = str(input_of(("data", b"a secret prompt"), a="b"))
    assert "secret" not in text
    assert "data: 15 bytes" in text


@pytest.mark.parametrize(
    ("module", "package", "read"),
    [
        ("numpy", "numpy", Input.get_as_npz),
        ("numpy", "numpy", Input.get_as_numpy),
        ("PIL.Image", "pillow", Input.get_as_image),
    ],
)
def test_a_missing_library_is_named_with_the_place_to_add_it(
    module: str, package: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what Python itself does for a module that must not be imported
    array = "0000000100044e4441520000000300000764656661756c740007464c4f41543332"
    with pytest.raises(ImportError, match=rf"needs {package}, which is not installed in .*requirements\.txt"):
        read(input_of(("data", bytes.fromhex(array))))
