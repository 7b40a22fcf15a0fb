from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tiny_models import tiny_tokenizer

from bloomery import tasks
from bloomery.tasks import AnswerOptions
from djl_python import Input, Output

MakeInput = Callable[..., Input]
OPTIONS = AnswerOptions(conversational=True)
PAST = {"text": "And why?", "past_user_inputs": ["Are you well?"], "generated_responses": ["I am not."]}


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def ask(engine: ScriptedEngine, make: MakeInput, inputs: Any, parameters: Any = None, **fields: Any) -> Output:
    body = {"inputs": inputs, "parameters": parameters, **fields}
    return tasks.answer(engine, make(json.dumps(body).encode()), OPTIONS)


def body_of(output: Output) -> Any:
    return json.loads(output.content.value_at(0))


def test_the_answer_is_the_conversation_with_the_new_turn(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "I know not.")])
    assert body_of(ask(engine, request_of, PAST)) == {
        "generated_text": "I know not.",
        "conversation": {
            "past_user_inputs": ["Are you well?", "And why?"],
            "generated_responses": ["I am not.", "I know not."],
        },
    }


def test_the_answer_can_be_sent_back_with_the_next_text(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "So.")])
    conversation = body_of(ask(engine, request_of, {"text": "To be?"}))["conversation"]
    again = ask(engine, request_of, {"text": "And why?", **conversation})
    assert body_of(again)["conversation"]["past_user_inputs"] == ["To be?", "And why?"]


def test_without_a_template_every_turn_ends_with_the_end_token(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]])
    ask(engine, request_of, PAST)
    end = [tokenizer.eos_token_id]
    turns = (ids(tokenizer, turn) + end for turn in ("Are you well?", "I am not.", "And why?"))
    assert engine.prompts == [[token for turn in turns for token in turn]]


def test_an_encoder_reads_the_turns_as_one_text(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [[70]])
    engine.encoder_decoder = True
    ask(engine, request_of, PAST)
    assert engine.prompts == [tokenizer("Are you well?  I am not.  And why?")["input_ids"]]


def test_the_chat_template_makes_the_prompt_where_there_is_one(request_of: MakeInput) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    engine = ScriptedEngine(tokenizer, [[70]])
    ask(engine, request_of, PAST)
    prompt = "user: Are you well?\nassistant: I am not.\nuser: And why?\nassistant:"
    assert engine.prompts == [ids(tokenizer, prompt)]


def test_a_text_body_begins_a_conversation(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "a")])
    output = tasks.answer(engine, request_of(b"To be?", "text/plain"), OPTIONS)
    assert body_of(output)["conversation"] == {"past_user_inputs": ["To be?"], "generated_responses": ["a"]}


def test_parameters_are_those_of_text_generation(tokenizer: Any, request_of: MakeInput) -> None:
    engine = ScriptedEngine(tokenizer, [ids(tokenizer, "a!b")])
    found = body_of(ask(engine, request_of, PAST, {"max_new_tokens": 7, "stop": ["!"]}))
    assert found["generated_text"] == "a"
    assert engine.parameters is not None
    assert engine.parameters.max_new_tokens == 7


@pytest.mark.parametrize(
    ("inputs", "fields", "message"),
    [
        ("Hello", {}, 'inputs is "Hello": it must be an object with text, past_user_inputs'),
        ({"text": "a", "role": "user"}, {}, "it must be an object with text"),
        ({"past_user_inputs": []}, {}, "inputs.text is null"),
        ({"text": " "}, {}, "inputs.text is an empty text"),
        ({"text": "a", "past_user_inputs": "b"}, {}, 'inputs.past_user_inputs is "b": it must be a list'),
        ({"text": "a", "past_user_inputs": ["b"]}, {}, "every past input has its response"),
        ({"text": "a", "past_user_inputs": [1], "generated_responses": ["b"]}, {}, "inputs.past_user_inputs[0] is 1"),
        (PAST, {"stream": True}, "leave stream out"),
        (PAST, {"parameters": {"details": True}}, "parameters.details is true: this task has no such choice"),
        (PAST, {"parameters": {"max_new_tokens": 0}}, "parameters.max_new_tokens is 0"),
        (PAST, {"parameters": {"max_new_tokens": 5000}}, "more than the 1024"),
    ],
)
def test_a_wrong_request_is_refused_in_words(
    inputs: Any, fields: dict[str, Any], message: str, tokenizer: Any, request_of: MakeInput
) -> None:
    body = json.dumps({"inputs": inputs, **fields}).encode()
    output = tasks.answer(ScriptedEngine(tokenizer, [[70]]), request_of(body), OPTIONS)
    assert output.code == 400
    assert message in body_of(output)["error"]


def test_joined_conversations_are_answered_each(tokenizer: Any) -> None:
    inputs = Input()
    inputs.properties = {"batch_size": "2"}
    for index, spoken in enumerate(["To be?", ""]):
        inputs.properties[f"batch_00{index}.Content-Type"] = "application/json"
        inputs.content.add(f"batch_00{index}.data", bytearray(json.dumps({"inputs": {"text": spoken}}).encode()))
    output = tasks.answer(ScriptedEngine(tokenizer, [ids(tokenizer, "a")]), inputs, OPTIONS)
    first, second = (json.loads(value) for _, value in output.content)
    assert (first["generated_text"], second["code"]) == ("a", 400)
