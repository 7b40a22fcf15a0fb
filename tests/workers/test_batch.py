from __future__ import annotations

import json

import pytest

from bloomery.protocol.frames import Request, ResponseHead
from bloomery.workers import batch


def test_joined_requests_keep_their_headers_and_parts_apart():
    one = Request({"Content-Type": "text/plain", "X-Id": "1"}, [("data", b"a"), (None, b"q")])
    two = Request({"Content-Type": "text/csv"}, [("data", b"b")])

    assert batch.joined([one, two]) == Request(
        {
            "batch_size": "2",
            "batch_000.Content-Type": "text/plain",
            "batch_000.X-Id": "1",
            "batch_001.Content-Type": "text/csv",
        },
        [("batch_000.data", b"a"), ("batch_000.", b"q"), ("batch_001.data", b"b")],
    )


def test_each_request_gets_its_own_entry_and_all_get_the_properties():
    head = ResponseHead(200, "OK", {"content-type": "text/plain"}, [("batch_1.data", b"b"), ("batch_000.", b"a")])

    first, second = batch.answers(head, 2)

    assert (first.content, second.content) == ([("data", b"a")], [("data", b"b")])
    assert first.properties == second.properties == {"content-type": "text/plain"}
    assert first.code == second.code == 200


def test_a_failure_is_everybodys():
    answers = batch.answers(ResponseHead(507, "no mem", {}, []), 3)

    assert [(each.code, each.message, each.content) for each in answers] == [(507, "no mem", [])] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([("batch_0.data", b"a")], "Batch output size mismatch, expected: 2, actual: 1"),
        ([("batch_0.data", b"a"), ("x", b"b")], "Unexpected batch output key: x; expected batch_index 0 to 1"),
        ([(None, b"a"), (None, b"b")], "Unexpected batch output key: None; expected batch_index 0 to 1"),
        ([("batch_0.data", b"a"), ("batch_2.data", b"b")], "Unexpected batch output key: batch_2.data"),
        ([("batch_0.data", b"a"), ("batch_00.data", b"b")], "Batch output has two entries for batch_index 0"),
        ([], "Batch output size mismatch, expected: 2, actual: 0"),
        (None, "a joined request cannot be streamed"),
    ],
)
def test_a_malformed_answer_is_an_error_of_each_request_in_words(content, message):
    answers = batch.answers(ResponseHead(200, "OK", {}, content), 2)

    assert [each.code for each in answers] == [424, 424]
    assert message in json.loads(answers[0].content[0][1])["error"]


def test_a_rolling_batchs_headers_belong_to_one_request_or_to_all():
    head = ResponseHead(200, "OK", {"x": "all", "batch_0_Content-Type": "a", "batch_1_Content-Type": "b"}, [])

    assert batch.item_properties(head, 1) == {"x": "all", "Content-Type": "b"}
