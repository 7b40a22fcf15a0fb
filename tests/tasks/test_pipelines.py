from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from bloomery import tasks
from bloomery.errors import BadRequestError
from djl_python import Input, Output

MakeInput = Callable[..., Input]
QUESTION = {"question": "Where?", "context": "In London."}


class Upper:
    """A fake engine: its result for an item is the item in capitals, and it writes down how it was called."""

    max_tokens = 8
    mask_token: str | None = "[MASK]"

    def __init__(self, task: str) -> None:
        self.task = task
        self.calls: list[tuple[list[Any], dict[str, Any]]] = []

    def count_tokens(self, text: Any) -> int:
        return sum(len(part.split()) for part in ([text] if isinstance(text, str) else text.values()))

    def run(self, items: Sequence[Any], parameters: Mapping[str, Any]) -> list[Any]:
        if parameters.get("targets") == ["nothing"]:
            raise BadRequestError("fill-mask: no such target")
        self.calls.append((list(items), dict(parameters)))
        return [str(item).upper() for item in items]


def ask(engine: Upper, make: MakeInput, inputs: Any, parameters: Any = None, **fields: Any) -> Output:
    body = {"inputs": inputs, "parameters": parameters, **fields}
    return tasks.answer(engine, make(json.dumps(body).encode()))


def body_of(output: Output) -> Any:
    return json.loads(output.content.value_at(0))


@pytest.mark.parametrize("task", ["token-classification", "feature-extraction"])
def test_one_text_has_one_result_and_a_list_a_list(task: str, request_of: MakeInput) -> None:
    assert body_of(ask(Upper(task), request_of, "a b")) == "A B"
    assert body_of(ask(Upper(task), request_of, ["a b"])) == ["A B"]
    assert body_of(ask(Upper(task), request_of, ["a", "b"])) == ["A", "B"]


def test_a_text_alone_is_classified_in_a_list_unless_labels_are_counted(request_of: MakeInput) -> None:
    engine = Upper("text-classification")
    assert body_of(ask(engine, request_of, "a")) == ["A"]
    assert body_of(ask(engine, request_of, "a", {"top_k": 1})) == "A"
    assert body_of(ask(engine, request_of, {"text": "a", "text_pair": "b"})) == "{'TEXT': 'A', 'TEXT_PAIR': 'B'}"


def test_a_text_body_is_one_item(request_of: MakeInput) -> None:
    output = tasks.answer(Upper("token-classification"), request_of(b"a b", "text/plain"))
    assert (output.get_property("content-type"), body_of(output)) == ("application/json", "A B")


def test_a_question_has_its_context(request_of: MakeInput) -> None:
    engine = Upper("question-answering")
    ask(engine, request_of, [QUESTION], {"top_k": 2, "max_answer_len": None})
    assert engine.calls == [([QUESTION], {"top_k": 2})]


def test_truncation_is_told_to_the_pipeline_in_its_own_way(request_of: MakeInput) -> None:
    long, cut = "[MASK] " * 9, {"truncation": True, "max_length": 8}
    classifier, filler = Upper("text-classification"), Upper("fill-mask")
    ask(classifier, request_of, long, {"truncation": True})
    ask(filler, request_of, long, {"truncation": True})
    assert classifier.calls == [([long], cut)]
    assert filler.calls == [([long], {"tokenizer_kwargs": cut})]


@pytest.mark.parametrize(
    ("task", "inputs", "parameters", "message"),
    [
        ("fill-mask", "Paris is.", {}, "inputs has no [MASK]: put it where a word shall be filled in"),
        ("fill-mask", ["[MASK]", "x"], {}, "inputs[1] has no [MASK]"),
        ("fill-mask", "[MASK]", {"targets": ["nothing"]}, "no such target"),
        ("fill-mask", "[MASK]", {"targets": 3}, "parameters.targets is 3: it must be a list of texts"),
        ("fill-mask", "[MASK]", {"targets": ["a", ""]}, "its texts must not be empty"),
        ("text-classification", "", {}, "inputs is an empty text"),
        ("text-classification", [], {}, "inputs is an empty list"),
        ("text-classification", ["a"] * 513, {}, "inputs holds 513 items"),
        (
            "text-classification",
            3,
            {},
            "inputs is 3: text-classification takes an object with text and text_pair, or a",
        ),
        ("text-classification", {"text": "a"}, {}, "takes an object with text and text_pair"),
        ("text-classification", "a", {"top_k": 0}, "parameters.top_k is 0: it must be an integer from 1"),
        ("text-classification", "a", {"function_to_apply": "tanh"}, "one of sigmoid, softmax, none"),
        ("text-classification", "a", {"temperature": 1}, "Unknown parameter 'temperature': text-classification takes"),
        (
            "text-classification",
            "a " * 9,
            {},
            "has 9 tokens, more than the 8 that this model reads: shorten it, or send",
        ),
        ("token-classification", "a " * 9, {}, "more than the 8 that this model reads: shorten it."),
        ("token-classification", None, {}, "inputs is null: it must be a text"),
        ("token-classification", "a", {"aggregation_strategy": 1}, "one of none, simple, first, average, max"),
        (
            "question-answering",
            "Where?",
            {},
            'inputs is "Where?": question-answering takes an object with question and',
        ),
        ("question-answering", {**QUESTION, "context": ""}, {}, "inputs.context is an empty text"),
        ("question-answering", [QUESTION, {"question": "?"}], {}, "inputs[1] is"),
        ("zero-shot-classification", "a", {}, "parameters.candidate_labels is missing"),
        (
            "zero-shot-classification",
            "a",
            {"candidate_labels": "a,b", "hypothesis_template": "{0.__class__}"},
            "must hold {} once",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_words(
    task: str, inputs: Any, parameters: Any, message: str, request_of: MakeInput
) -> None:
    output = ask(Upper(task), request_of, inputs, parameters)
    assert output.code == 400
    assert message in body_of(output)["error"]


def test_there_is_no_stream(request_of: MakeInput) -> None:
    output = ask(Upper("text-classification"), request_of, "a", stream=True)
    assert "stream is true: text-classification has one answer and no stream" in body_of(output)["error"]


def test_labels_may_be_a_text_with_commas(request_of: MakeInput) -> None:
    engine = Upper("zero-shot-classification")
    ask(engine, request_of, "a", {"candidate_labels": "good, bad", "multi_label": True})
    assert engine.calls == [(["a"], {"candidate_labels": ["good", "bad"], "multi_label": True})]


def joined(*bodies: dict[str, Any]) -> Input:
    """Requests as the server joins them."""
    inputs = Input()
    inputs.properties = {"batch_size": str(len(bodies))}
    for index, body in enumerate(bodies):
        inputs.properties[f"batch_{index:03}.Content-Type"] = "application/json"
        inputs.content.add(f"batch_{index:03}.data", bytearray(json.dumps(body).encode()))
    return inputs


def bodies_of(output: Output) -> dict[str, Any]:
    return {str(key): json.loads(value) for key, value in output.content}


def test_joined_requests_with_equal_parameters_run_together() -> None:
    engine = Upper("text-classification")
    output = tasks.answer(
        engine,
        joined({"inputs": ["a", "b"]}, {"inputs": "c"}, {"inputs": "d", "parameters": {"top_k": 2}}, {"inputs": "e"}),
    )
    assert bodies_of(output) == {"batch_0.": ["A", "B"], "batch_1.": ["C"], "batch_2.": "D", "batch_3.": ["E"]}
    assert engine.calls == [(["a", "b", "c", "e"], {}), (["d"], {"top_k": 2})]


def test_a_refused_request_does_not_spoil_the_others() -> None:
    refused = {"inputs": "[MASK]", "parameters": {"targets": ["nothing"]}}
    bodies = bodies_of(tasks.answer(Upper("fill-mask"), joined({"inputs": "x"}, {"inputs": "[MASK]"}, refused)))
    assert bodies["batch_0."]["code"] == bodies["batch_2."]["code"] == 400
    assert bodies["batch_1."] == "[MASK]"
