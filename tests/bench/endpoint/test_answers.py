from __future__ import annotations

import json
from typing import Any

import pytest

from bloomery.bench.endpoint.answers import tally
from bloomery.bench.endpoint.call import Reply
from bloomery.bench.endpoint.load import measured


def lines(*records: tuple[float, Any], content_type: str = "application/jsonlines") -> Reply:
    return Reply(tuple((at, json.dumps(record).encode() + b"\n") for at, record in records), content_type)


def test_figures_of_a_stream_by_hand() -> None:
    # Due at 10, sent at 10.1; four tokens at 10.5, 10.6, 10.8, 10.8; details at 10.9.
    reply = lines(
        (10.5, {"outputs": ["To"]}),
        (10.6, {"outputs": [" be"]}),
        (10.8, {"outputs": [","]}),
        (10.8, {"outputs": [" or"]}),
        (10.9, {"outputs": [""], "details": [{"generated_tokens": 4}]}),
    )
    call = measured(reply, due=10.0, sent=10.1, done=11.0, counter=None)
    assert call.ttft == pytest.approx(0.5)
    assert call.tpot == pytest.approx((10.8 - 10.5) / 3)
    assert call.gaps == pytest.approx([0.1, 0.2, 0.0])
    assert call.latency == pytest.approx(0.9)
    assert (call.tokens, call.steps, call.counted_by) == (4, 4, "endpoint")


def test_records_are_found_however_the_network_cuts_them() -> None:
    whole = b'{"outputs": ["a"]}\n{"outputs": ["\\u00e9"]}\n{"outputs": ["c"]}\n'
    pieces = tuple((float(index), whole[index : index + 7]) for index in range(0, len(whole), 7))
    found = tally(Reply(pieces, "application/jsonlines"))
    assert found.texts == ["aéc"]
    assert found.times == [14.0, 42.0, 56.0]  # when the last byte of each line came


def test_half_a_character_is_a_token_but_not_the_first_that_a_reader_sees() -> None:
    found = tally(lines((1.0, {"outputs": [""]}), (2.0, {"outputs": ["é"]}), (3.0, {"outputs": [""]})))
    assert found.times == [2.0, 3.0]


def test_several_rows_per_step() -> None:
    found = tally(
        lines(
            (1.0, {"outputs": ["a", "b"]}),
            (2.0, {"outputs": ["c", ""]}),
            (2.5, {"outputs": ["", ""], "details": [{"generated_tokens": 2}, {"generated_tokens": 1}]}),
        )
    )
    assert found.texts == ["ac", "b"]
    assert (found.tokens, found.steps) == (3, 2)


def test_token_lines_of_tgi_as_events() -> None:
    records = [
        {"index": 1, "token": {"id": 5, "text": "To"}, "generated_text": None, "details": None},
        {"index": 2, "token": {"id": 6, "text": " be"}, "generated_text": "To be", "details": {"generated_tokens": 2}},
    ]
    reply = Reply(
        tuple((float(at), b"data:" + json.dumps(record).encode() + b"\n\n") for at, record in enumerate(records)),
        "text/event-stream",
    )
    found = tally(reply)
    assert (found.texts, found.tokens, found.times) == (["To be"], 2, [0.0, 1.0])


def test_chunks_of_openai_with_usage() -> None:
    records = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": "To"}}], "usage": None},
        {"choices": [{"index": 0, "delta": {"content": " be"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens": 7}},
    ]
    pieces = [(float(at), b"data: " + json.dumps(record).encode() + b"\n\n") for at, record in enumerate(records)]
    found = tally(Reply((*pieces, (9.0, b": ping\n\ndata: [DONE]\n\n")), "text/event-stream"))
    assert found.times == [1.0, 2.0]
    assert (found.texts, found.tokens, found.prompt_tokens, found.counted_by) == (["To be"], 2, 7, "endpoint")


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"generated_text": "x", "details": {"generated_tokens": 3}}, 3),
        ([{"generated_text": "x", "details": {"generated_tokens": 3}}] * 2, 6),
        ([[{"generated_text": "x", "details": {"generated_tokens": 3}}]] * 2, 6),
        ({"choices": [{"index": 0, "text": "x"}], "usage": {"completion_tokens": 4}}, 4),
    ],
)
def test_whole_answers(answer: Any, tokens: int) -> None:
    found = tally(Reply(((1.0, json.dumps(answer, indent=1).encode()),), "application/json"))
    assert (found.tokens, found.streamed) == (tokens, False)


def test_a_whole_answer_has_no_time_to_first_token_even_in_several_pieces() -> None:
    body = json.dumps({"generated_text": "x" * 50}).encode()
    call = measured(Reply(((1.0, body[:20]), (2.0, body[20:])), "application/json"), 0.0, 0.0, 3.0, None)
    assert (call.ttft, call.tpot, call.gaps, call.latency) == (None, None, [], 2.0)


def test_a_tokenizer_counts_where_nobody_tells() -> None:
    found = tally(Reply(((1.0, b'{"generated_text": "to be or not"}'),)), counter=lambda text: len(text.split()))
    assert (found.tokens, found.counted_by) == (4, "tokenizer")


def test_without_one_records_count() -> None:
    found = tally(Reply(((1.0, b"To"), (2.0, b" be")), "text/plain"))
    assert (found.texts, found.tokens, found.counted_by) == (["To be"], 2, "records")


def test_an_error_in_a_stream_is_a_failure() -> None:
    reply = lines((1.0, {"outputs": ["a"]}), (2.0, {"error": "rank 1 died", "code": 503}))
    call = measured(reply, 0.0, 0.0, 2.0, None)
    assert (call.failure, call.reason) == ("error in the answer", "503 rank 1 died")


def test_an_empty_answer_is_a_failure() -> None:
    assert measured(Reply(((1.0, b"[]"),)), 0.0, 0.0, 1.0, None).failure == "empty answer"
