from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from bloomery.formats import openai
from bloomery.formats.openai import Shape
from bloomery.protocol.events import Event, Failure, Finish, FinishReason, Token

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}]}
COMPLETION: dict[str, Any] = {"prompt": "?"}


def shape(body: dict[str, Any], **fields: Any) -> Shape:
    return Shape.of({**body, **fields}, "m")


def finish(row: int, text: str, reason: FinishReason = "length", generated: int = 2, prompt: int = 3) -> Finish:
    return Finish(row, reason, generated, prompt, text)


def chunks(events: list[Token | Finish], wanted: Shape) -> list[dict[str, Any]]:
    stream = openai.Chunks(wanted)
    return [chunk for event in events for chunk in stream.of(event)] + stream.ending()


def document(events: list[Event], wanted: Shape) -> dict[str, Any]:
    answer = openai.document(events, wanted)
    assert isinstance(answer, dict)
    return answer


def test_a_chat_is_answered_by_a_message() -> None:
    answer = document([Token(0, 5, "Hi"), finish(0, "Hi")], shape(CHAT))
    parsed = ChatCompletion.model_validate(answer, strict=True)
    assert (parsed.object, parsed.model, parsed.id.partition("-")[0]) == ("chat.completion", "m", "chatcmpl")
    assert (parsed.choices[0].message.content, parsed.choices[0].message.role) == ("Hi", "assistant")


def test_a_completion_is_answered_by_texts_in_the_order_of_their_rows() -> None:
    answer = document([finish(1, "b"), finish(0, "a")], shape(COMPLETION))
    parsed = Completion.model_validate(answer, strict=True)
    assert (parsed.object, parsed.id.partition("-")[0]) == ("text_completion", "cmpl")
    assert [(choice.index, choice.text) for choice in parsed.choices] == [(0, "a"), (1, "b")]


@pytest.mark.parametrize(("reason", "word"), [("length", "length"), ("eos_token", "stop"), ("stop_sequence", "stop")])
def test_why_a_row_ended_is_told_in_openais_words(reason: FinishReason, word: str) -> None:
    answer = document([finish(0, "", reason)], shape(CHAT))
    assert answer["choices"][0]["finish_reason"] == word


@pytest.mark.parametrize("reason", ["cancelled", "error"])
def test_a_row_that_was_cut_short_is_no_answer(reason: FinishReason) -> None:
    answer = openai.document([finish(0, "half a", reason)], shape(CHAT))
    assert isinstance(answer, Failure)
    assert reason in answer.message


def test_a_failure_takes_the_place_of_the_answer() -> None:
    failure = Failure(424, "boom")
    assert openai.document([Token(0, 1, "a"), failure], shape(CHAT)) == failure


def test_a_prompt_that_is_continued_twice_is_counted_once() -> None:
    events: list[Event] = [finish(row, "x") for row in range(4)]  # two prompts, two copies of each
    assert document(events, shape(COMPLETION, n=2))["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 8,
        "total_tokens": 14,
    }


def test_the_chosen_tokens_log_probabilities_of_a_chat() -> None:
    answer = document([Token(0, 5, "é", -0.5), finish(0, "é")], shape(CHAT, logprobs=True))
    assert answer["choices"][0]["logprobs"]["content"] == [
        {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}
    ]


def test_the_chosen_tokens_log_probabilities_of_a_completion_have_their_places() -> None:
    events: list[Event] = [Token(0, 5, "To", -0.5), Token(0, 6, " be", -1.5), finish(0, "To be")]
    log_probs = document(events, shape(COMPLETION, logprobs=0))["choices"][0]["logprobs"]
    assert log_probs == {
        "tokens": ["To", " be"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": None,
        "text_offset": [0, 2],
    }


def test_log_probabilities_are_told_only_when_asked_for() -> None:
    events: list[Event] = [Token(0, 5, "To", -0.5), finish(0, "To")]
    for body in (shape(CHAT), shape(CHAT, logprobs=False), shape(COMPLETION), shape(COMPLETION, logprobs=None)):
        assert document(events, body)["choices"][0]["logprobs"] is None


def test_a_streamed_chat_opens_with_the_role_and_ends_with_the_reason() -> None:
    found = chunks([Token(0, 1, "To"), Token(0, 2, " be"), finish(0, "To be")], shape(CHAT))
    for chunk in found:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": ""},
        {"content": "To"},
        {"content": " be"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "length"]
    assert len({chunk["id"] for chunk in found}) == 1


def test_a_streamed_completion_is_made_of_texts() -> None:
    found = chunks([Token(1, 1, "To"), finish(1, "To")], shape(COMPLETION))
    assert [(chunk["object"], chunk["choices"][0]["index"], chunk["choices"][0]["text"]) for chunk in found] == [
        ("text_completion", 1, "To"),
        ("text_completion", 1, ""),
    ]


def test_half_a_character_is_no_chunk_unless_its_log_probability_is_asked_for() -> None:
    events: list[Token | Finish] = [Token(0, 1, "", -1.0), Token(0, 2, "é", -2.0), finish(0, "é")]
    assert len(chunks(events, shape(COMPLETION))) == 2
    found = chunks(events, shape(COMPLETION, logprobs=0))
    assert [chunk["choices"][0]["logprobs"]["token_logprobs"] for chunk in found[:2]] == [[-1.0], [-2.0]]


def test_the_place_of_a_streamed_token_counts_what_has_left_before() -> None:
    found = chunks([Token(0, 1, "To", -1.0), Token(0, 2, " be", -1.0)], shape(COMPLETION, logprobs=0))
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in found] == [[0], [2]]


def test_the_usage_of_a_stream_is_its_last_chunk_when_asked_for() -> None:
    wanted = shape(CHAT, stream_options={"include_usage": True})
    *before, last = chunks([Token(0, 1, "To"), finish(0, "To")], wanted)
    assert all(chunk["usage"] is None for chunk in before)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)
    assert "usage" not in chunks([finish(0, "")], shape(CHAT))[-1]


def test_server_sent_events_end_with_done() -> None:
    records = list(openai.streamed([Token(0, 1, "a\nb"), finish(0, "a\nb")], shape(COMPLETION), sse=True))
    assert records[-1] == b"data: [DONE]\n\n"
    assert all(record.startswith(b"data: {") and record.count(b"\n") == 2 for record in records[:-1])


def test_json_lines_end_with_the_last_chunk() -> None:
    lines = list(openai.streamed([Token(0, 1, "a"), finish(0, "a")], shape(CHAT), sse=False))
    assert [json.loads(line)["object"] for line in lines] == ["chat.completion.chunk"] * 3


@pytest.mark.parametrize("sse", [True, False])
def test_a_failure_is_the_last_record_of_a_stream(sse: bool) -> None:
    records = list(openai.streamed([Token(0, 1, "a"), Failure(507, "no memory")], shape(CHAT), sse=sse))
    last = json.loads(records[-1].decode().removeprefix("data: "))
    assert (last["error"]["message"], last["error"]["type"]) == ("no memory", "server_error")


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (413, "invalid_request_error", None),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "server_error", "service_unavailable"),
    ],
)
def test_an_error_object_says_of_which_kind_it_is(status: int, kind: str, code: str | None) -> None:
    expected = {"message": "no", "type": kind, "param": "n", "code": code}
    assert openai.error_object(status, "no", "n") == {"error": expected}
