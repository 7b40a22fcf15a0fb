from __future__ import annotations

import json
from collections.abc import Iterator

from bloomery import formats
from bloomery.protocol.events import Event, Failure, Finish, Token


def finish(row: int, text: str) -> Finish:
    return Finish(row, "length", 1, 1, text)


def test_the_list_is_in_the_order_of_the_prompts() -> None:
    events: list[Event] = [Token(0, 5, "a"), Token(1, 6, "b"), finish(1, "b"), finish(0, "a")]
    assert formats.generated_texts(events, ["x ", ""]) == [{"generated_text": "x a"}, {"generated_text": "b"}]


def test_a_failure_takes_the_place_of_the_list() -> None:
    failure = Failure(424, "boom")
    assert formats.generated_texts([Token(0, 5, "a"), failure], [""]) == failure


def test_a_line_holds_the_new_text_of_every_row() -> None:
    events: list[Event] = [Token(0, 1, "a"), Token(1, 2, "b"), Token(0, 3, "c"), finish(0, "ac"), Token(1, 4, "d")]
    lines = [json.loads(line) for line in formats.steps_as_jsonlines(events, 2)]
    assert lines == [{"outputs": ["a", "b"]}, {"outputs": ["c", "d"]}]


def test_rows_that_are_complete_are_not_waited_for() -> None:
    events: list[Event] = [Token(0, 1, "a"), Token(1, 2, "b"), finish(1, "b"), Token(0, 3, "c"), Token(0, 4, "d")]
    lines = [json.loads(line)["outputs"] for line in formats.steps_as_jsonlines(events, 2)]
    assert lines == [["a", "b"], ["c", ""], ["d", ""]]


def test_a_line_does_not_wait_for_the_next_event() -> None:
    seen: list[str] = []

    def events() -> Iterator[Event]:
        for name in "ab":
            seen.append(name)
            yield Token(0, 1, name)

    next(formats.steps_as_jsonlines(events(), 1))
    assert seen == ["a"]


def test_a_row_cancelled_without_a_token_ends_the_step() -> None:
    events: list[Event] = [Token(0, 1, "a"), Finish(1, "cancelled", 0, 1, "")]
    assert [json.loads(line)["outputs"] for line in formats.steps_as_jsonlines(events, 2)] == [["a", ""]]


def test_a_failure_in_mid_stream_is_the_last_line() -> None:
    events: list[Event] = [Token(0, 1, "a"), Failure(424, "rank 1 died"), Token(0, 2, "b")]
    lines = [json.loads(line) for line in formats.steps_as_jsonlines(events, 1)]
    assert lines == [{"outputs": ["a"]}, {"error": "rank 1 died", "code": 424}]


def test_lines_are_split_by_nothing_but_their_own_end() -> None:
    (line,) = formats.steps_as_jsonlines([Token(0, 1, "a\n\u2028b\x85")], 1)
    assert line.decode().splitlines() == [line.decode().rstrip("\n")]
    assert json.loads(line) == {"outputs": ["a\n\u2028b\x85"]}
