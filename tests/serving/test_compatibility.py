from __future__ import annotations

import json

import pytest

from bloomery.protocol import private
from bloomery.protocol.frames import Request
from bloomery.serving.compatibility import key


def request(document: object, content_type: str = "application/json", **properties: str) -> Request:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Request({"Content-Type": content_type, "X-Request-Id": "any", **properties}, [("data", body)])


def test_requests_that_differ_only_in_their_input_may_be_joined():
    one = request({"inputs": "a", "parameters": {"x": 1, "y": 2}}, **{"User-Agent": "one"})
    two = request({"parameters": {"y": 2, "x": 1}, "inputs": ["b", "c"]}, **{"User-Agent": "two"})

    assert key(one) == key(two) is not None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (request({"inputs": "a", "parameters": {"x": 1}}), request({"inputs": "a", "parameters": {"x": 2}})),
        (request({"inputs": "a"}), request({"inputs": "a", "parameters": {}})),
        (request(b"a", "text/plain"), request(b"a", "text/csv")),
        (request(b"a", Accept="text/plain"), request(b"a", accept="application/json")),
    ],
)
def test_requests_that_differ_in_anything_else_may_not(one, two):
    assert key(one) is not None
    assert key(one) != key(two)


@pytest.mark.parametrize(
    "alone",
    [
        request({"inputs": "a", "stream": True}),
        request(b'{"inputs": '),
        request(b'{"a":' * 100_000),
        request(b"x" * (2**20 + 1), "text/plain"),
        request({"inputs": "a"}, **{private.EVENTS: "1"}),
        Request({}, [("data", b"a"), ("adapter", b"b")]),
        Request({}, []),
    ],
)
def test_what_is_streamed_malformed_large_or_in_parts_goes_alone(alone):
    assert key(alone) is None


def test_plain_text_may_be_joined():
    assert key(request(b"To be", "text/plain")) == key(request(b"or not", "text/plain")) is not None
