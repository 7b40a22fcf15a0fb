from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from bloomery import tasks
from bloomery.engines.base import GenerationParameters, Step
from bloomery.errors import UnsupportedRequestError
from bloomery.formats import Style
from djl_python import Input, Output


class Echo:
    """A fake engine: it continues every prompt with its own tokens, and writes down how it was called."""

    name = "echo"
    model_type = "none"
    encoder_decoder = False
    max_tokens = 64

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.calls: list[tuple[int, GenerationParameters]] = []

    def generate(self, input_ids: Sequence[Sequence[int]], parameters: GenerationParameters) -> Iterator[Step]:
        if parameters.num_beams > 1:
            raise UnsupportedRequestError("no beams here")
        self.calls.append((len(input_ids), parameters))
        for index in range(max(map(len, input_ids))):
            yield Step(
                tuple(row[index] if index < len(row) else None for row in input_ids),
                tuple("length" if index == len(row) - 1 else None for row in input_ids),
            )


def joined(*bodies: dict[str, Any]) -> Input:
    """Requests as the server joins them."""
    inputs = Input()
    inputs.properties = {"batch_size": str(len(bodies))}
    for index, body in enumerate(bodies):
        inputs.properties[f"batch_{index:03}.Content-Type"] = "application/json"
        inputs.content.add(f"batch_{index:03}.data", bytearray(json.dumps(body).encode()))
    return inputs


def bodies_of(output: Output) -> dict[str, Any]:
    assert output.code == 200
    return {str(key): json.loads(value) for key, value in output.content}


def test_equal_parameters_are_continued_together(tokenizer: Any) -> None:
    engine = Echo(tokenizer)
    output = tasks.answer(engine, joined({"inputs": ["To", "be"]}, {"inputs": "or"}))
    assert bodies_of(output) == {
        "batch_0.": [{"generated_text": "ToTo"}, {"generated_text": "bebe"}],
        "batch_1.": [{"generated_text": "oror"}],
    }
    assert engine.calls == [(3, GenerationParameters())]


def test_different_parameters_are_continued_one_after_the_other(tokenizer: Any) -> None:
    engine = Echo(tokenizer)
    few = {"max_new_tokens": 2, "return_full_text": False}
    output = tasks.answer(engine, joined({"inputs": "To"}, {"inputs": "be", "parameters": few}, {"inputs": "or"}))
    assert [body[0]["generated_text"] for body in bodies_of(output).values()] == ["ToTo", "be", "oror"]
    assert [rows for rows, _ in engine.calls] == [2, 1]


def test_a_seed_stays_alone(tokenizer: Any) -> None:
    engine = Echo(tokenizer)
    seeded = {"inputs": "To", "parameters": {"do_sample": True, "seed": 1}}
    tasks.answer(engine, joined(seeded, seeded))
    assert [rows for rows, _ in engine.calls] == [1, 1]


def test_a_refused_request_does_not_spoil_the_others(tokenizer: Any) -> None:
    engine = Echo(tokenizer)
    beams = {"inputs": "To", "parameters": {"num_beams": 2}}
    bodies = bodies_of(tasks.answer(engine, joined({"inputs": 3}, {"inputs": "To"}, beams)))
    assert bodies["batch_0."]["code"] == 400
    assert "inputs is 3" in bodies["batch_0."]["error"]
    assert bodies["batch_1."] == [{"generated_text": "ToTo"}]
    assert bodies["batch_2."] == {"error": "no beams here", "code": 400}


def test_joined_requests_are_answered_in_the_models_style(tokenizer: Any) -> None:
    options = tasks.AnswerOptions(style=Style("object"))
    details = {"inputs": "be", "parameters": {"details": True}}
    output = tasks.answer(Echo(tokenizer), joined({"inputs": "To"}, {"inputs": ["or", "not"]}, details), options)
    bodies = bodies_of(output)
    assert bodies["batch_0."] == {"generated_text": "To"}
    assert [answer["generated_text"] for answer in bodies["batch_1."]] == ["or", "not"]
    assert bodies["batch_2."]["details"]["inputs"] == "be"


def test_a_joined_request_that_has_no_place_in_the_style_is_refused_alone(tokenizer: Any) -> None:
    options = tasks.AnswerOptions(style=Style(plain=True))
    output = tasks.answer(Echo(tokenizer), joined({"inputs": ["To", "be"]}, {"inputs": "or"}), options)
    first, second = (value for _, value in output.content)
    assert json.loads(first)["code"] == 400
    assert second == b"or"
