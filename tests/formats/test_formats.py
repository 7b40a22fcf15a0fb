from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bloomery import formats
from bloomery.errors import StreamError
from bloomery.formats import Asked, Style
from bloomery.protocol.events import Event, Failure, Finish, Token

EVENTS: list[Event] = [
    Token(0, 5, "a", -0.5),
    Token(0, 2, "", -0.25, special=True, last=True),
    Finish(0, "eos_token", 2, 3, "a"),
]


def finish(row: int, text: str) -> Finish:
    return Finish(row, "length", 1, 1, text)


def asked(*prompts: str, full: bool = False, **fields: Any) -> Asked:
    return Asked(prompts, prompts if full else ("",) * len(prompts), **fields)


def complete(events: list[Event], ask: Asked, style: Style) -> Any:
    rows = formats.gather(events, len(ask.prompts))
    assert not isinstance(rows, Failure)
    return formats.complete_answer(rows, ask, style)


def lines(events: list[Event], ask: Asked, style: Style) -> list[Any]:
    return [json.loads(line) for line in formats.stream_answer(events, ask, style)]


def test_the_list_is_in_the_order_of_the_prompts() -> None:
    events: list[Event] = [Token(0, 5, "a"), Token(1, 6, "b"), finish(1, "b"), finish(0, "a")]
    prefixed = Asked(("x ", "y"), ("x ", ""))
    assert complete(events, prefixed, Style()) == [{"generated_text": "x a"}, {"generated_text": "b"}]


def test_a_failure_takes_the_place_of_the_answer() -> None:
    failure = Failure(424, "boom")
    assert formats.gather([Token(0, 5, "a"), failure], 1) == failure


def test_the_list_of_lists_answers_a_list_only() -> None:
    nested = Style("nested")
    assert complete(EVENTS, asked("x", full=True, listed=True), nested) == [[{"generated_text": "xa"}]]
    assert complete(EVENTS, asked("x", full=True), nested) == [{"generated_text": "xa"}]


def test_the_object_is_alone_unless_the_prompts_were_a_list() -> None:
    assert complete(EVENTS, asked("x"), Style("object")) == {"generated_text": "a"}
    assert complete(EVENTS, asked("x", listed=True), Style("object")) == [{"generated_text": "a"}]


DETAILS: list[tuple[Style, dict[str, Any]]] = [
    (
        Style("object"),
        {
            "finish_reason": "eos_token",
            "generated_tokens": 2,
            "inputs": "x",
            "tokens": [
                {"id": 5, "text": "a", "log_prob": -0.5},
                {"id": 2, "text": "", "log_prob": -0.25, "special_token": True},
            ],
        },
    ),
    (
        Style("list", compat="0.27"),
        {
            "finish_reason": "eos_token",
            "generated_tokens": 2,
            "inputs": "x",
            "tokens": [
                {"id": [5], "text": "a", "log_prob": -0.5},
                {"id": [2], "text": "", "log_prob": -0.25, "special_token": True},
            ],
        },
    ),
    (
        Style("object", compat="0.36"),
        {
            "finish_reason": "eos_token",
            "generated_tokens": 2,
            "seed": 7,
            "prefill": [],
            "tokens": [{"id": 5, "text": "a", "logprob": -0.5}, {"id": 2, "text": "", "logprob": -0.25}],
        },
    ),
    (
        Style("tgi", "sse"),
        {
            "finish_reason": "eos_token",
            "generated_tokens": 2,
            "seed": 7,
            "prefill": [],
            "tokens": [
                {"id": 5, "text": "a", "logprob": -0.5, "special": False},
                {"id": 2, "text": "", "logprob": -0.25, "special": True},
            ],
        },
    ),
]


@pytest.mark.parametrize(("style", "expected"), DETAILS, ids=["documented", "0.27", "0.36", "tgi"])
def test_details_are_told_in_the_dialects_words(style: Style, expected: dict[str, Any]) -> None:
    answer = complete(EVENTS, asked("x", details=True, seed=7), style)
    assert (answer if style.shape == "object" else answer[0])["details"] == expected


def test_a_stream_of_tokens_ends_with_the_whole_text() -> None:
    assert lines(EVENTS, asked("x", full=True), Style("object")) == [
        {"token": {"id": 5, "text": "a", "log_prob": -0.5}},
        {"token": {"id": 2, "text": "", "log_prob": -0.25, "special_token": True}, "generated_text": "xa"},
    ]


def test_the_documented_stream_ends_with_details_when_asked() -> None:
    last = lines(EVENTS, asked("x", details=True), Style("object"))[-1]
    assert last["details"] == {"finish_reason": "eos_token", "generated_tokens": 2, "inputs": "x"}


def test_the_lines_of_0_36_have_every_key() -> None:
    first, last = lines(EVENTS, asked("x", details=True, seed=7), Style("object", compat="0.36"))
    assert first == {
        "index": 0,
        "token": {"id": 5, "text": "a", "logprob": -0.5},
        "generated_text": None,
        "details": None,
    }
    assert (last["generated_text"], last["details"]) == (
        "a",
        {"finish_reason": "eos_token", "generated_tokens": 2, "seed": 7, "input_length": 3},
    )


def test_tgis_events_count_tokens_and_are_framed_as_server_sent_events() -> None:
    events = list(formats.stream_answer(EVENTS, asked("x"), Style("tgi", "sse")))
    assert all(event.startswith(b"data: {") and event.endswith(b"}\n\n") for event in events)
    first, last = (json.loads(event.removeprefix(b"data: ")) for event in events)
    assert (first["index"], last["index"]) == (1, 2)
    assert first["generated_text"] is None
    assert (last["token"]["special"], last["generated_text"], last["details"]) == (True, "a", None)


def test_a_row_that_was_cancelled_between_tokens_has_a_last_line_without_one() -> None:
    events: list[Event] = [Token(0, 5, "a"), Finish(0, "cancelled", 1, 3, "a")]
    assert lines(events, asked("x"), Style("object"))[-1] == {"token": None, "generated_text": "a"}


@pytest.mark.parametrize("style", [Style("list"), Style("object")])
def test_a_failure_in_mid_stream_is_the_last_line(style: Style) -> None:
    events: list[Event] = [Token(0, 1, "a"), Failure(424, "rank 1 died"), Token(0, 2, "b")]
    found = lines(events, asked("x"), style)
    assert (len(found), found[-1]) == (2, {"error": "rank 1 died", "code": 424})


def test_bare_text_has_no_place_for_a_failure() -> None:
    stream = formats.stream_answer(
        [Token(0, 1, "a"), Failure(424, "rank 1 died")], asked("x"), Style(stream_form="text")
    )
    assert next(stream) == b"a"
    with pytest.raises(StreamError, match="rank 1 died"):
        next(stream)


def test_a_line_holds_the_new_text_of_every_row() -> None:
    events: list[Event] = [Token(0, 1, "a"), Token(1, 2, "b"), Token(0, 3, "c"), finish(0, "ac"), Token(1, 4, "d")]
    assert lines(events, asked("x", "y"), Style()) == [{"outputs": ["a", "b"]}, {"outputs": ["c", "d"]}]


def test_details_of_a_list_follow_in_a_line_without_text() -> None:
    found = lines(EVENTS, asked("x", details=True), Style())
    assert [line["outputs"] for line in found] == [["a"], [""], [""]]
    assert found[-1]["details"] == [{"finish_reason": "eos_token", "generated_tokens": 2, "inputs": "x"}]


def test_rows_that_are_complete_are_not_waited_for() -> None:
    events: list[Event] = [Token(0, 1, "a"), Token(1, 2, "b"), finish(1, "b"), Token(0, 3, "c"), Token(0, 4, "d")]
    assert list(formats.texts_per_step(events, 2)) == [["a", "b"], ["c", ""], ["d", ""]]


@pytest.mark.parametrize("style", [Style("list"), Style("object")])
def test_a_line_does_not_wait_for_the_next_event(style: Style) -> None:
    seen: list[str] = []

    def events() -> Iterator[Event]:
        for name in "ab":
            seen.append(name)
            yield Token(0, 1, name)

    next(formats.stream_answer(events(), asked("x"), style))
    assert seen == ["a"]


def test_a_row_cancelled_without_a_token_ends_the_step() -> None:
    events: list[Event] = [Token(0, 1, "a"), Finish(1, "cancelled", 0, 1, "")]
    assert list(formats.texts_per_step(events, 2)) == [["a", ""]]


def test_lines_are_split_by_nothing_but_their_own_end() -> None:
    (line,) = formats.stream_answer([Token(0, 1, "a\n\u2028b\x85")], asked("x"), Style())
    assert line.decode().splitlines() == [line.decode().rstrip("\n")]
    assert json.loads(line) == {"outputs": ["a\n\u2028b\x85"]}
