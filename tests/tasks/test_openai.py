from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.scripted_engine import ScriptedEngine

from bloomery import tasks
from bloomery.errors import UnsupportedModelError
from bloomery.formats import Style
from bloomery.protocol import private
from bloomery.protocol.events import CONTENT_TYPE, Finish, Token, decode_event
from bloomery.tasks import AnswerOptions
from djl_python import Input, Output

MakeInput = Callable[..., Input]
CHAT = [{"role": "user", "content": "Who?"}]


@pytest.fixture
def chatting(tokenizer: Any) -> Any:
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = "<s>{{ messages[0].content }}>"
    return copied


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def ask(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def body_of(output: Output) -> Any:
    assert output.stream_content is None
    return json.loads(output.content.value_at(0))


def stream_of(output: Output) -> list[bytes]:
    assert output.stream_content is not None
    assert output.stream_formatter is None
    return list(output.stream_content)


def test_a_chat_is_rendered_by_the_template_which_writes_the_special_tokens(
    chatting: Any, request_of: MakeInput
) -> None:
    engine = ScriptedEngine(chatting, [ids(chatting, "Nay")])
    output = tasks.answer(engine, request_of(ask(messages=CHAT)))
    assert (output.code, output.get_property("content-type")) == (200, "application/json")
    assert body_of(output)["choices"][0]["message"]["content"] == "Nay"
    assert engine.prompts == [ids(chatting, "<s>Who?>")]


def test_a_chat_without_a_limit_gets_all_there_is_room_for(chatting: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(chatting, [ids(chatting, "Nay")], max_tokens=50)
    tasks.answer(engine, request_of(ask(messages=CHAT)))
    assert engine.parameters is not None
    assert engine.parameters.max_new_tokens == 50 - len(ids(chatting, "<s>Who?>"))


def test_copies_of_a_prompt_are_rows_of_their_own(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, text) for text in ("a", "b", "c", "d")])
    answer = body_of(tasks.answer(engine, request_of(ask(prompt=["To", "be"], n=2))))
    assert engine.prompts == [ids(tokenizer, "To")] * 2 + [ids(tokenizer, "be")] * 2
    assert [choice["text"] for choice in answer["choices"]] == ["a", "b", "c", "d"]


def test_token_ids_are_continued_as_they_are(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "b")])
    tasks.answer(engine, request_of(ask(prompt=[70, 71])))
    assert engine.prompts == [[70, 71]]


@pytest.mark.parametrize("as_ids", [False, True])
def test_an_echoed_prompt_stands_before_its_continuation(tokenizer: Any, request_of: MakeInput, as_ids: bool) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be")])
    prompt = ids(tokenizer, "To") if as_ids else "To"
    answer = body_of(tasks.answer(engine, request_of(ask(prompt=prompt, echo=True))))
    assert (answer["choices"][0]["text"], answer["usage"]["completion_tokens"]) == ("To be", len(engine.rows[0]))


def test_an_echoed_prompt_is_a_streams_first_text(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab")])
    output = tasks.answer(engine, request_of(ask(prompt="To", echo=True, stream=True)))
    lines = [json.loads(line) for line in stream_of(output)]
    assert "".join(line["choices"][0]["text"] for line in lines) == "Toab"
    assert lines[0]["choices"][0]["text"] == "To"


def test_a_stream_is_json_lines_unless_the_client_accepts_events(tokenizer: Any, request_of: MakeInput) -> None:
    for accept, content_type in (("*/*", "application/jsonlines"), ("text/event-stream", "text/event-stream")):
        engine = ScriptedEngine(tokenizer, [ids(tokenizer, "a")])
        output = tasks.answer(engine, request_of(ask(prompt="To", stream=True), Accept=accept))
        assert output.get_property("content-type") == content_type
        assert (stream_of(output)[-1] == b"data: [DONE]\n\n") == (content_type == "text/event-stream")


def test_who_does_not_say_gets_the_handlers_default_of_streaming(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "a")])
    assert tasks.answer(engine, request_of(ask(prompt="To")), stream=True).stream_content is not None
    assert tasks.answer(engine, request_of(ask(prompt="To", stream=False)), stream=True).stream_content is None


def test_the_handlers_formatter_frames_its_streams(tokenizer: Any, request_of: MakeInput) -> None:
    options = AnswerOptions(style=Style(stream_form="sse"))
    output = tasks.answer(ScriptedEngine(tokenizer, [[70]]), request_of(ask(prompt="To", stream=True)), options)
    assert output.get_property("content-type") == "text/event-stream"


def test_the_handlers_stop_sequences_are_for_who_names_none(tokenizer: Any, request_of: MakeInput) -> None:
    options = AnswerOptions(stop_sequences=("b",))
    for asked, text in (({}, "a"), ({"stop": "c"}, "ab")):
        engine = ScriptedEngine(tokenizer, [ids(tokenizer, "abc")])
        answer = body_of(tasks.answer(engine, request_of(ask(prompt="To", **asked)), options))
        assert answer["choices"][0]["text"] == text


def test_an_encoder_decoder_has_all_its_room_for_the_answer(tokenizer: Any, request_of: MakeInput) -> None:
    class EncoderDecoder(ScriptedEngine):
        encoder_decoder = True

    engine = EncoderDecoder(tokenizer, [[70]], max_tokens=20)
    assert tasks.answer(engine, request_of(ask(prompt="abcdefghijkl", max_tokens=20))).code == 200


def test_requests_that_the_server_joined_are_answered_each_in_its_form(tokenizer: Any) -> None:
    bodies = [ask(prompt="To"), ask(inputs="To"), ask(messages=CHAT)]
    inputs = Input()
    inputs.properties = {"batch_size": str(len(bodies))}
    for index, body in enumerate(bodies):
        inputs.properties[f"batch_{index}.Content-Type"] = "application/json"
        inputs.content.add(f"batch_{index}.data", bytearray(body))
    output = tasks.answer(ScriptedEngine(tokenizer, [ids(tokenizer, " be")]), inputs)
    answers = [json.loads(output.content.value_at(index)) for index in range(len(bodies))]
    assert answers[0]["choices"][0]["text"] == " be"
    assert answers[1] == [{"generated_text": "To be"}]
    assert "no chat template" in answers[2]["error"]


def events_of(lines: bytes) -> list[Any]:
    return [decode_event(line) for line in lines.splitlines()]


def test_the_door_gets_events_all_at_once_for_a_complete_answer(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab")])
    asking = request_of(ask(prompt="To"), **{private.EVENTS: "1"})
    output = tasks.answer(engine, asking, stream=True)  # the door's clients stream only when they say so
    assert output.get_property("content-type") == CONTENT_TYPE
    (finish,) = events_of(bytes(output.content.value_at(0)))
    assert isinstance(finish, Finish)
    assert finish.text == "ab"


def test_the_door_gets_tokens_when_their_log_probabilities_are_asked_for(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab")])
    output = tasks.answer(engine, request_of(ask(prompt="To", logprobs=0), **{private.EVENTS: "1"}))
    kinds = [type(event) for event in events_of(bytes(output.content.value_at(0)))]
    assert kinds == [Token] * len(engine.rows[0]) + [Finish]


def test_the_door_gets_a_streams_events_one_by_one(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab")])
    output = tasks.answer(engine, request_of(ask(prompt="To", stream=True), **{private.EVENTS: "1"}))
    assert output.get_property("content-type") == CONTENT_TYPE
    assert [len(events_of(piece)) for piece in stream_of(output)] == [1] * (len(engine.rows[0]) + 1)


def test_the_model_is_called_as_the_server_calls_it(
    tokenizer: Any, request_of: MakeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine(tokenizer, [[70]])
    monkeypatch.setenv(private.MODEL_NAME, "hamlet")
    assert body_of(tasks.answer(engine, request_of(ask(prompt="To", model="gpt"))))["model"] == "hamlet"


def test_under_a_foreign_server_the_model_is_called_as_the_client_calls_it_or_by_its_directory(
    tokenizer: Any, request_of: MakeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(private.MODEL_NAME, raising=False)
    engine = ScriptedEngine(tokenizer, [[70]])
    assert body_of(tasks.answer(engine, request_of(ask(prompt="To", model="gpt"))))["model"] == "gpt"
    unnamed = request_of(ask(prompt="To"), model_dir="/opt/ml/model")
    assert body_of(tasks.answer(engine, unnamed))["model"] == "model"


def test_a_refusal_names_the_field_for_the_door(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]])
    output = tasks.answer(engine, request_of(ask(prompt="To", n=0), **{private.EVENTS: "1"}))
    assert (output.code, body_of(output)["code"], output.get_property(private.PARAM)) == (400, 400, "n")
    assert "n is 0" in body_of(output)["error"]


def test_a_refusal_for_another_peer_has_no_private_property(tokenizer: Any, request_of: MakeInput) -> None:
    output = tasks.answer(ScriptedEngine(tokenizer, [[70]]), request_of(ask(prompt="To", n=0)))
    assert output.get_properties() == {"content-type": "application/json"}


def test_a_model_without_a_template_refuses_chats_and_takes_prompts(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]])
    output = tasks.answer(engine, request_of(ask(messages=CHAT)))
    assert output.code == 400
    assert "/v1/completions" in body_of(output)["error"]
    assert tasks.answer(engine, request_of(ask(prompt="Who?"))).code == 200


@pytest.mark.parametrize(("room", "remedy"), [(20, "lower max_tokens to"), (3, "shorten it")])
def test_a_request_that_does_not_fit_is_refused_with_figures(
    tokenizer: Any, request_of: MakeInput, room: int, remedy: str
) -> None:
    engine = ScriptedEngine(tokenizer, [[70]], max_tokens=room)
    output = tasks.answer(engine, request_of(ask(prompt="abcdefghijkl", max_tokens=30)))
    assert output.code == 400
    assert remedy in body_of(output)["error"]
    assert f"more than the {room} that this model" in body_of(output)["error"]
    assert engine.steps_made == 0


def test_a_chat_that_leaves_no_room_is_refused(chatting: Any, request_of: MakeInput) -> None:
    output = tasks.answer(ScriptedEngine(chatting, [[70]], max_tokens=3), request_of(ask(messages=CHAT)))
    assert output.code == 400
    assert "shorten it" in body_of(output)["error"]


def test_a_failure_before_the_end_fails_a_complete_answer(tokenizer: Any, request_of: MakeInput) -> None:
    def fail(step: int) -> None:
        if step == 1:
            raise RuntimeError("out of memory")

    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "ab")], before_step=fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        tasks.answer(engine, request_of(ask(prompt="To"), **{private.EVENTS: "1"}))


def test_a_body_of_the_other_form_is_not_taken_for_this_one(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, " be")])
    body = body_of(tasks.answer(engine, request_of(ask(inputs='what is a "prompt"?'))))
    assert body == [{"generated_text": 'what is a "prompt"? be'}]


def test_a_checkpoint_without_a_tokenizer_is_not_the_clients_fault(request_of: MakeInput) -> None:
    with pytest.raises(UnsupportedModelError, match="brings no tokenizer"):
        tasks.answer(ScriptedEngine(None, [[70]]), request_of(ask(prompt="To")))
